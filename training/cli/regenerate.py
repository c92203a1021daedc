"""`spec-convert regenerate`: the verifier answers the questions of a data set itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.evaluate import llm_arguments
from spec_convert.cli.output import json_option, show, show_json
from spec_convert.errors import UsageError
from spec_convert.training.cli.duration import patience_option

if TYPE_CHECKING:
    from spec_convert.training.regeneration.regenerating import Regenerated


@click.command(short_help="Let the verifier answer the questions of a data set.")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.argument("output", metavar="OUTPUT.jsonl", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--verifier", metavar="BASE", help="The model that answers. With --endpoint: what the servers must be serving."
)
@click.option(
    "--endpoint", "endpoints", metavar="URL", multiple=True,
    help="A server of OpenAI's protocol, such as http://127.0.0.1:8000. Repeatable: all serve the same model.",
)  # fmt: skip
@click.option(
    "--engine", type=click.Choice(["vllm", "transformers"]),
    help="Without --endpoint: what runs the verifier here. Default: vllm when it is installed.",
)  # fmt: skip
@click.option(
    "--concurrent-requests", "concurrency", metavar="N", type=click.IntRange(min=1), default=32, show_default=True,
    help="Conversations at work at once; with transformers, in one batch.",
)  # fmt: skip
@click.option("--max-tokens", type=click.IntRange(min=1), default=2048, show_default=True, help="Of each answer.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 is greedy.")
@click.option(
    "--top-p", type=click.FloatRange(min=0, min_open=True, max=1),
    help="For sampling. Default: as the model's generation config says.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For sampling.")
@click.option("--max-samples", metavar="N", type=click.IntRange(min=1), help="Ask only the first N conversations.")
@patience_option
@llm_arguments("max_model_len=4096")
@json_option
def regenerate(  # noqa: PLR0913  (each is a choice of the user's)
    *,
    sources: tuple[str, ...],
    output: Path,
    verifier: str | None,
    endpoints: tuple[str, ...],
    engine: str | None,
    concurrency: int,
    max_samples: int | None,
    patience: float,
    llm_args: tuple[tuple[str, Any], ...],
    as_json: bool,
    **sampled: Any,
) -> None:
    """Write what the verifier itself answers to the questions of SOURCE.

    A draft learns best from its own verifier's words. The user turns and the system prompt of each conversation are
    asked turn after turn, each answer in the context of the ones before; answers of the source are left out. SOURCE is
    what `prepare` reads: files of conversations, Hub datasets, or a preset's name.

    OUTPUT holds a conversation a line in the order of the sources, and `prepare` reads it; `finish_reasons` says which
    answers were cut. What is done so far lies in OUTPUT.jsonl.partial: the same command goes on with it. What was asked
    and what came of it stays in OUTPUT.report.json.

    Servers that want a key get that of the environment variable OPENAI_API_KEY.
    """
    from spec_convert.training.regeneration.answerer import Pace, behind_endpoints, on_this_machine
    from spec_convert.training.regeneration.conversing import Sampling
    from spec_convert.training.regeneration.questions import read_questions
    from spec_convert.training.regeneration.regenerating import regenerate as run
    from spec_convert.training.regeneration.regenerating import report_of

    if endpoints and (engine or llm_args):
        given = "--engine" if engine else "--llm-arg"
        raise UsageError(f"{given} is for an engine here, and --endpoint names a server", hint="leave one of them out")
    report_of(output)
    sampling = Sampling(**sampled)
    questions = read_questions(sources, limit=max_samples)
    pace = Pace(concurrency, patience)
    if endpoints:
        answerer = behind_endpoints(endpoints, sampling, verifier=verifier, pace=pace)
    else:
        answerer = on_this_machine(verifier, sampling, engine=engine, llm_args=dict(llm_args), pace=pace)
    made = run(questions, output, answerer, sampling)
    if as_json:
        show_json(made.to_json())
    else:
        _tell(made)


def _tell(made: Regenerated) -> None:
    show(f"output      {made.output}")
    show(f"verifier    {made.model}")
    show(f"answers     {made.answers:,} in {made.conversations:,} conversations, {made.tokens:,} tokens")
    show(f"cut         {made.cut:,} answers did not end by themselves")
    if made.with_reasoning:
        show(f"reasoning   beside {made.with_reasoning:,} answers, as `reasoning_content`")
    if made.shortened:
        show(f"shortened   {made.shortened:,} conversations, whose last turns were refused")
    for reason, count in made.left_out_by_reason.items():
        first = next(problem for problem in made.left_out if problem.reason == reason)
        show(f"left out    {count:,} {reason}, the first {first.where}: {first.message}")
    if made.tokens_per_second is None:
        show("speed       everything was there already")
    else:
        show(f"speed       {made.tokens_per_second:,.0f} tokens/s: {made.new_tokens:,} in {made.seconds:,.1f} s")
