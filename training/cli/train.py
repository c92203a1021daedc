"""`spec-convert train`: a draft learns from its verifier's hidden states. The work is done elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from itertools import chain
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.convert import LayerIds
from spec_convert.cli.output import as_problem, json_option, show, show_error, show_json, show_warning
from spec_convert.errors import Exit, SpecConvertError
from spec_convert.narration import listen
from spec_convert.training.recipes import RECIPES

if TYPE_CHECKING:
    from spec_convert.training.settings import TrainSettings
    from spec_convert.training.trainer.trained import Trained

KINDS = tuple(RECIPES)
ALONE = 10.0  # seconds that torchrun has to end the others
ALIAS = "--verifier"  # as the other verbs call it; the help shows the name that trainers know


def _choice(*names: str) -> click.Choice[str]:
    return click.Choice(names)


def _file(metavar: str) -> dict[str, Any]:
    return {"metavar": metavar, "type": click.Path(path_type=Path)}


# No option has a default: the settings do, and what is left out must not win over the file. Ranges are theirs too.
GROUPS: Mapping[str, tuple[Callable[..., Any], ...]] = {
    "Data": (
        click.option("--verifier-name-or-path", ALIAS, metavar="BASE", help="The model that it drafts for."),
        click.option("--data-path", **_file("DIR"), help="Its states: of generate, collect, or .pt."),
        click.option("--val-data-path", **_file("DIR"), help="The same, of what is held out."),
        click.option("--total-seq-len", metavar="N", type=int, help="Tokens of a packed row. Default: 2048."),
        click.option("--data-format-version", type=click.Choice([0, 1]), help="Of .pt files. Default: as they are."),
        click.option("--layer-ids", metavar="IDS", type=LayerIds(), help="Of .pt files of others: boundary ids."),
        click.option("--last-state", metavar="WHICH", type=_choice("before-norm", "after-norm"),
            help="Of the same: before-norm or after-norm.",
        ),
    ),
    "Draft": (
        click.option("--draft", metavar="KIND", type=_choice(*KINDS), help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}."),
        click.option("--draft-config", metavar="FILE", help="Its shape. Default: as the verifier's."),
        click.option("--num-layers", metavar="N", type=int, help="How many layers it has."),
        click.option("--target-layers", metavar="IDS", type=LayerIds(), help="Boundary ids that it is fed: 2,14,25."),
        click.option("--d2t-path", **_file("FILE"), help="Its vocabulary, of the verb vocab …"),
        click.option("--t2d-path", **_file("FILE"), help="… in both of its files."),
        click.option("--from-pretrained", metavar="SOURCE", help="Go on with this draft, in any format."),
    ),
    "Learning": (
        click.option("--epochs", metavar="N", type=int, help="Default: 10."),
        click.option("--max-steps", metavar="N", type=int, help="Stop after so many optimiser steps."),
        click.option("--lr", metavar="X", type=float, help="At its highest."),
        click.option("--optimizer", type=_choice("adamw", "muon"), help="Default: adamw."),
        click.option("--scheduler", metavar="NAME", type=_choice("linear", "cosine", "constant", "wsd"),
            help="linear, constant, wsd. Default: cosine.",
        ),
        click.option("--warmup-ratio", metavar="X", type=float, help="Share of the steps. Default: 0.03."),
        click.option("--gradient-accumulation-steps", metavar="N", type=int, help="Rows of a step. Default: 1."),
        click.option("--learn-prompts/--answers-only", default=None, help="Default: answers only."),
        click.option("--loss", metavar="MIX", help="Such as soft_ce or soft_ce=1.0,tv=0.1."),
        click.option("--ttt-steps", metavar="K", type=int, help="How many tokens ahead it learns."),
        click.option("--ttt-step-loss-decay", metavar="X", type=float, help="Each counts X times the one before."),
        click.option("--seed", metavar="N", type=int, help="Of all that is random. Default: 0."),
    ),
    "Run": (
        click.option("--save-path", **_file("DIR"), help="Where the run and its drafts lie."),
        click.option("--save-steps", metavar="N", type=int, help="Save so often, not at epochs alone."),
        click.option("--dtype", metavar="TYPE", type=_choice("float32", "bfloat16", "float16"),
            help="Of saved drafts. Default: the verifier's.",
        ),
        click.option("--with-head/--without-head", default=None, help="Whether a shared head is saved."),
        click.option(
            "--no-resume-from-checkpoint", "resume_from_checkpoint", is_flag=True, flag_value=False, default=None,
            help="Begin anew.",
        ),
        click.option("--amp/--no-amp", default=None, help="bfloat16 autocast. Default: on a GPU."),
        click.option("--device", metavar="D", help="Default: cuda where there is one."),
        click.option("--parallel", type=_choice("ddp", "fsdp"), help="Under torchrun: copies, or shards."),
        click.option("--logger", metavar="NAME", multiple=True, help="trackio, wandb, tensorboard, or several."),
        click.option("--log-dir", **_file("DIR"), help="Of trackers. Default: DIR/logs of the run."),
        click.option("--run-name", metavar="NAME", help="In trackers. Default: as its folder."),
        click.option(
            "--config", "file", metavar="TOML", type=click.Path(path_type=Path, dir_okay=False, exists=True),
            help="A file of options; flags win over it.",
        ),
        click.option("--dump-config", "dump", is_flag=True, help="Print such a file, and do nothing."),
        json_option,
        click.help_option("-h", "--help"),
    ),
}  # fmt: skip


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    return reduce(lambda decorated, one: one(decorated), reversed([*chain(*GROUPS.values())]), command)


class Grouped(click.Command):
    """Many options on one screen: each on its line, under the headings of ``GROUPS``."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [record for param in self.get_params(ctx) if (record := param.get_help_record(ctx))]
        rows = [(name.replace(f", {ALIAS}", ""), text) for name, text in rows]
        widest = max(len(name) for name, _ in rows)
        remaining = iter([(name.ljust(widest), text) for name, text in rows])
        formatter.write_paragraph()
        for heading, group in GROUPS.items():
            formatter.write_heading(heading)
            with formatter.indentation():
                formatter.write_dl([next(remaining) for _ in group], col_max=widest)


@click.command(cls=Grouped, short_help="Train a draft on its verifier's hidden states.")
@options
def train(file: Path | None, dump: bool, as_json: bool, logger: tuple[str, ...], **flags: Any) -> int:
    """Train a draft on its verifier's hidden states, by the recipe of its kind."""
    from spec_convert.training.settings_file import as_toml, read_settings

    first = os.environ.get("RANK", "0") == "0"
    if not first:
        listen(wanted=False)
    with _said_once():
        settings = read_settings(file, {**flags, "logger": logger or None})
        if dump:
            if first:
                show(as_toml(settings).rstrip())
            return Exit.CLEAN
        trained = _run(settings)
    if first:
        _tell(trained, None if trained.stopped_by else _report(trained.folder), as_json=as_json)
    return trained.exit_code


def _run(settings: TrainSettings) -> Trained:
    from spec_convert.training.preflight import require_runnable

    require_runnable(settings, os.environ)
    from spec_convert.training.training import train as run  # loads torch

    return run(settings)


@contextmanager
def _said_once() -> Iterator[None]:
    """What all processes of a machine are refused for is said by the first: torchrun then ends the others.

    One that is still there after a while is the only one with this problem, and says it.
    """
    try:
        yield
    except SpecConvertError:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(ALONE)
        raise


def _report(folder: Path) -> Path | None:
    """The page of the training. It is told why there is none: no page is worth the result of a training."""
    from spec_convert.training.report.writing import write_report

    try:
        return write_report(folder)
    except Exception as failure:  # whatever it is, the drafts are there
        show_warning(f"no report: {as_problem(failure).message}", f"spec-convert report {quote(str(folder))}")
        return None


def _tell(trained: Trained, report: Path | None, *, as_json: bool) -> None:
    if as_json:
        show_json(trained.to_json() | {"report": None if report is None else str(report)})
    else:
        _show(trained)
        show(f"report      {report or f'none; spec-convert report {quote(str(trained.folder))} makes one'}")
    if trained.problem:
        show_error(SpecConvertError(trained.problem, hint="a lower --lr, or --no-amp, may keep them finite"))


def _show(trained: Trained) -> None:
    show(f"output      {trained.folder}")
    show(f"steps       {trained.steps:,} of {trained.planned_steps:,}, {trained.skipped:,} left out")
    show(f"tokens      {trained.tokens:,} in {trained.seconds:,.1f} s")
    for name, line in (("trained", trained.metrics), ("held out", trained.held_out)):
        if line and line["tau"] is not None:
            show(f"{name:<11} tau {line['tau']:.3f}, J {' '.join(f'{share:.3f}' for share in line['joint'])}")
    if trained.best_epoch is not None:
        show(f"best        epoch {trained.best_epoch} of {trained.epochs}")
    if trained.draft is not None:
        show(f"draft       {trained.draft}")
    if trained.state is not None:
        show(f"state       {trained.state}")
