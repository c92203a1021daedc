"""`spec-convert evaluate`: how often a draft is accepted, how much faster text comes, and whether it stays the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.decorators import FC

from spec_convert.cli.output import as_json_text, json_option, show, show_error, show_json, show_table
from spec_convert.errors import Exit, SpecConvertError, UsageError

if TYPE_CHECKING:
    from spec_convert.evaluation.measured import Difference, Measured


class LlmArgument(click.ParamType[tuple[str, Any]]):
    """`max_model_len=4096`: a name, and a value as JSON or, when it is none, as text."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        name, equals, text = str(value).partition("=")
        if not (equals and name.isidentifier()):
            self.fail(f"{value!r} is not of the form KEY=VALUE, such as max_model_len=4096", param, ctx)
        if text in ("True", "False"):  # as Python spells them, where these arguments come from
            text = text.lower()
        try:
            return name, json.loads(text)
        except ValueError:
            return name, text


def llm_arguments(example: str) -> Callable[[FC], FC]:
    """The option `--llm-arg` of verbs that run a vLLM of their own."""
    return click.option(
        "--llm-arg", "llm_args", multiple=True, type=LlmArgument(),
        help=f"With vllm: an argument of its LLM class, such as {example}. Repeatable.",
    )  # fmt: skip


@click.command(short_help="Measure how well a draft drafts.")
@click.argument("draft")
@click.option(
    "--prompts", required=True, metavar="FILE", help="JSONL, JSON, text or Parquet; or a Hub dataset: org/name[:split]."
)
@click.option(
    "--verifier", metavar="BASE", help="The model that the draft was trained for. Default: as the draft says."
)
@click.option("--engine", type=click.Choice(["transformers", "vllm"]), default="transformers", show_default=True)
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Of each answer.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Take only the first N prompts.")
@click.option(
    "--speculative-tokens", metavar="K", type=click.IntRange(min=1),
    help="How many tokens are drafted at a time. Default: as the draft says.",
)  # fmt: skip
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For sampling.")
@click.option(
    "--dtype", type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Compute in it. Default: float32; with vllm, what vLLM chooses.",
)  # fmt: skip
@click.option(
    "--compare/--no-compare", default=True, show_default=True,
    help="Also let the verifier answer alone: for the speed-up, and whether the text is the same.",
)  # fmt: skip
@llm_arguments("max_model_len=4096")
@click.option("--verbose", is_flag=True, help="With vllm: show what it prints.")
@click.option(
    "--report", metavar="HTML", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with plots."
)
@click.option(
    "--output", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Also write the JSON to it."
)
@json_option
def evaluate(
    draft: str, llm_args: tuple[tuple[str, Any], ...], report: Path | None, output: Path | None, as_json: bool,
    **flags: Any,
) -> Exit:  # fmt: skip
    """Let DRAFT, in any layout, help its verifier to answer prompts, and measure.

    Says for each position how often drafted tokens are accepted, the mean acceptance length, the speed with and
    without the draft, and whether greedy text is the verifier's own, token by token. If it is not, the exit code is 1.

    A prompt is a conversation (`conversations` or `messages`; answers in it are left out), MT-bench's `turns`, one
    `prompt`, `question` or `text`, or a line of a .txt file.

    The engine transformers answers one prompt at a time. vllm batches them as it serves them: with
    `--llm-arg max_num_seqs=1` it, too, answers one at a time.
    """
    from spec_convert.evaluation.evaluation import evaluate as run
    from spec_convert.evaluation.page import page

    for option, file in (("--report", report), ("--output", output)):
        if file is not None and not file.absolute().parent.is_dir():
            hint = f"make it, or give another {option}"
            raise UsageError(f"there is no folder {file.parent} for {option}", hint=hint)
    measured = run(draft, llm_args=dict(llm_args), **flags)
    if as_json:
        show_json(measured.to_json())
    else:
        _tell(measured)
    if output is not None:
        _write("--output", output, as_json_text(measured.to_json()) + "\n")
    if report is not None:
        _write("--report", report, page(measured))
        if not as_json:
            show(f"report      {report}")
    if measured.lossless is False:
        show_error(
            SpecConvertError(
                _not_lossless(measured),
                hint="no draft can change greedy text: the engine, or its settings, are at fault",
            )
        )
        return Exit.FINDINGS
    return Exit.CLEAN


def _write(option: str, file: Path, text: str) -> None:
    """At one instant, so that nobody reads half of it; what is no file, such as /dev/stdout, is written to."""
    target = file if file.exists() and not file.is_file() else file.resolve()
    partial = target if target is file else target.with_name(f".{target.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        if partial is not target:
            partial.replace(target)
    except OSError as reason:
        raise UsageError(f"cannot write {file}: {reason.strerror}", hint=f"give another {option}") from reason


def _tell(measured: Measured) -> None:
    decoding = f"temperature {measured.temperature:g}" if measured.temperature else "greedy"
    show(f"draft       {measured.draft}, {measured.speculative_tokens} tokens at a time")
    show(f"verifier    {measured.verifier}")
    show(f"engine      {measured.engine}, {decoding}; {measured.prompts} prompts, {measured.answers} answers")
    show("")
    columns = (
        measured.acceptance_per_position,
        measured.conditional_acceptance,
        measured.alpha or [None] * measured.speculative_tokens,
    )
    rows = [(str(at), *map(_share, row)) for at, row in enumerate(zip(*columns, strict=True), 1)]
    show_table(("position", "acceptance", "conditional", "alpha"), rows)
    show("")
    show(f"tau         {measured.mean_acceptance_length:.3f} tokens per verifier pass, its own bonus token included")
    show(f"speed       {_speed(measured)}")
    show(f"lossless    {_lossless(measured)}")
    for difference in measured.differences or ():
        show(f"            {_parting(difference)}")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _speed(measured: Measured) -> str:
    drafted = f"{measured.with_draft.tokens_per_second:.1f} tokens/s with the draft"
    if measured.verifier_alone is None or measured.speedup is None:
        return f"{drafted}; the verifier alone was not run"
    return f"{drafted}, {measured.verifier_alone.tokens_per_second:.1f} without: {measured.speedup:.2f} times as fast"


def _lossless(measured: Measured) -> str:
    if measured.differences is None:
        return "not compared: " + ("sampled text differs" if measured.temperature else "the verifier alone was not run")
    if not measured.lossless:
        return f"NO: {_not_lossless(measured)}"
    ties = len(measured.differences)
    same = f"{measured.answers - ties} of {measured.answers} answers are the verifier's own, token by token"
    return f"yes: {same}" + (f"; {ties} part at a numerical tie" if ties else "")


def _not_lossless(measured: Measured) -> str:
    wrong = sum(not difference.tie for difference in measured.differences or ())
    return f"{wrong} of {measured.answers} answers are not the verifier's own text"


def _parting(difference: Difference) -> str:
    drafted, own = (
        "the end" if token is None else f"token {token}" for token in (difference.with_draft, difference.verifier)
    )
    logits = "" if difference.logits is None else " (logits {:.6g} and {:.6g})".format(*difference.logits)
    kind = "tie" if difference.tie else "DIFFERENCE"
    where = f"answer {difference.answer}, token {difference.position}, counted from 0"
    return f"{kind} in {where}: {drafted} with the draft, {own} without{logits}"
