"""`spec-convert pipeline`: from conversations to a measured draft, by one command that goes on where it ended."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.output import json_option, show, show_error, show_json, show_table
from spec_convert.errors import Exit
from spec_convert.training.recipes import RECIPES

if TYPE_CHECKING:
    from spec_convert.training.pipeline.overview import Planned
    from spec_convert.training.pipeline.running import Running

POSITIVE = click.IntRange(min=1)


@click.command(short_help="From conversations to a measured draft.")
@click.argument("file", metavar="[RUN.toml]", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--folder", metavar="RUN", help="Where all of it lies.")
@click.option("--verifier", metavar="BASE", help="The model that the draft is for.")
@click.option("--source", "sources", metavar="SOURCE", multiple=True, help="Conversations to learn from. Repeatable.")
@click.option("--held-out", metavar="SOURCE", multiple=True, help="Others, on which the draft is judged. Repeatable.")
@click.option("--max-samples", metavar="N", type=POSITIVE, help="Learn from so many of the conversations.")
@click.option("--regenerate", is_flag=True, help="Let the verifier answer their questions itself first.")
@click.option("--draft", type=click.Choice(tuple(RECIPES)), metavar="KIND", help="As for `train`. Default: eagle3.")
@click.option("--draft-vocab-size", metavar="N", type=POSITIVE, help="Give the draft a vocabulary of its own.")
@click.option("--epochs", metavar="N", type=POSITIVE, help="Passes over the data.")
@click.option("--prompts", metavar="FILE", help="Also run evaluate, on these prompts.")
@click.option("--from", "first", metavar="STAGE", help="Run this stage and those after it anew.")
@click.option("--to", "last", metavar="STAGE", help="End after this stage.")
@click.option("--only", metavar="STAGE", help="Run this stage alone, anew.")
@click.option("--dry-run", is_flag=True, help="Say what would run, and why, with sizes and times.")
@click.option("--dump-config", "dump", is_flag=True, help="Print the file for these flags, and do nothing.")
@json_option
@click.pass_context
def pipeline(  # noqa: PLR0913  (each is a choice of the user's)
    context: click.Context,
    /,
    *,
    file: Path | None,
    first: str | None,
    last: str | None,
    only: str | None,
    dry_run: bool,
    dump: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Make a draft of conversations: every stage a verb, whose options stand in RUN.toml, in a table of its name.

    \b
    regenerate  the verifier answers the questions           [regenerate]
    prepare     tokens and masks                             [prepare]
    generate    the verifier's hidden states                 [generate]
    vocab       the draft's own vocabulary                   [vocab]
    train       the draft                                    [train]
    validate    is it right?                                 [validate]
    evaluate    is it accepted?                              [evaluate]
    report      one page of all that                         [report]

    What is done is skipped until its options or inputs change. What was interrupted or has failed goes on by the
    same command without --from and --only, which begin anew. Flags win over the file.
    """
    from spec_convert.training.pipeline.planning import chosen
    from spec_convert.training.pipeline.settings import as_toml, read_request

    request = read_request(file, _said(flags, file))
    if dump:
        show(as_toml(request).rstrip())
        return Exit.CLEAN
    wanted, forced = chosen(request, first=first, last=last, only=only), bool(first or only)
    if dry_run:
        from spec_convert.training.pipeline.overview import overview

        _show_plan(overview(request, wanted, forced=forced), as_json=as_json)
        return Exit.CLEAN
    from spec_convert.training.pipeline.running import Running

    running = Running(request, wanted, forced, _again(context), quiet=_quiet(context))
    return _run(running, as_json=as_json)


def _run(running: Running, *, as_json: bool) -> int:
    code = running.run()
    for failed in running.failed:
        show_error(failed)
    if as_json:
        show_json(running.to_json())
    elif code == Exit.CLEAN:
        _tell(running.made())
    return code


def _said(flags: dict[str, Any], file: Path | None) -> dict[str, Any]:
    """The flags that were given, where a file has them."""
    places = {
        "folder": ("folder",), "verifier": ("verifier",), "sources": ("sources",), "held_out": ("held_out", "sources"),
        "max_samples": ("max_samples",), "draft": ("train", "draft"), "epochs": ("train", "epochs"),
        "draft_vocab_size": ("vocab", "draft_vocab_size"), "prompts": ("evaluate", "prompts"),
    }  # fmt: skip
    said: dict[str, Any] = {"regenerate": {}} if flags.pop("regenerate") else {}
    if file is None and flags["draft"] is None:
        flags["draft"] = "eagle3"
    for name, value in flags.items():
        if value in (None, ()):
            continue
        *tables, key = places[name]
        inner = said.setdefault(tables[0], {}) if tables else said
        inner[key] = list(value) if isinstance(value, tuple) else value
    return said


def _again(context: click.Context) -> str:
    """The command that goes on: --from and --only would begin anew what is done by now."""
    from spec_convert.training.pipeline.options import option_words

    params = context.params | {"first": None, "last": context.params["only"] or context.params["last"], "only": None}
    words = ["spec-convert", *(["--quiet"] if _quiet(context) else []), "pipeline"]
    for param in context.command.params:
        value = params[param.name or ""]
        if isinstance(param, click.Argument):
            words += [str(value)] if value else []
        elif param.name != "as_json" and value not in (None, (), False):
            words += option_words(param, value, where="") if isinstance(param, click.Option) else []
    return shlex.join(words)


def _quiet(context: click.Context) -> bool:
    return bool(context.find_root().params.get("quiet"))


def _show_plan(planned: Planned, *, as_json: bool) -> None:
    if as_json:
        show_json(planned.to_json())
        return
    show_table(("stage", "", "disk", "time", "why"), planned.rows())
    show("")
    for line in planned.lines():
        show(line)


def _tell(made: list[tuple[str, str]]) -> None:
    widest = max((len(name) for name, _ in made), default=0)
    for name, value in made:
        show(f"{name:<{widest}}  {value}")
