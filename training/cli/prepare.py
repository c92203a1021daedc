"""`spec-convert prepare`: conversations become tokens and masks; what became of every row is said."""

from __future__ import annotations

import os
import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spec_convert.cli.output import json_option, show, show_json
from spec_convert.errors import UsageError
from spec_convert.reports.escape import one_line

if TYPE_CHECKING:
    from spec_convert.training.preparation.preparing import Prepared


@click.command(short_help="Make training data of conversations: tokens and loss masks.")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--verifier", required=True, metavar="BASE", help="The model whose tokenizer and chat template it is for."
)
@click.option(
    "--seq-length", metavar="N", type=click.IntRange(min=1), default=2048, show_default=True,
    help="Longer conversations are cut to so many tokens.",
)  # fmt: skip
@click.option(
    "--max-samples", metavar="N", type=click.IntRange(min=1), help="Stop at so many samples of the shuffled rows."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the shuffling.")
@click.option(
    "--num-proc", metavar="N", type=click.IntRange(min=1), help="Processes that tokenise. Default: one for each core."
)
@click.option(
    "--show-mask", "shown", metavar="N", type=click.IntRange(min=0), default=0,
    help="Show N samples, with what is learned of them marked.",
)  # fmt: skip
@json_option
def prepare(  # noqa: PLR0913, PLR0917  the contract of the command line, flag by flag
    sources: tuple[str, ...],
    output: Path,
    verifier: str,
    seq_length: int,
    max_samples: int | None,
    seed: int,
    num_proc: int | None,
    shown: int,
    as_json: bool,
) -> None:
    """Write the conversations of each SOURCE to OUTPUT as token ids with an exact loss mask over all answers.

    A SOURCE is a file (.jsonl, .json, .parquet), a dataset on the Hub (org/name[@revision][:config][:split]), or one of
    sharegpt, ultrachat and gsm8k. A row is a conversation (`conversations` or `messages`, with role/content or
    from/value), or a `prompt` or `question` with its `response`, `completion`, `answer` or `output`.

    The masks come from the chat template of BASE's tokenizer. What is left out is counted by reason, with the first
    place. The same command goes on where it was interrupted.
    """
    from spec_convert.training.preparation.preparing import prepare as run

    if as_json and shown:
        raise UsageError("--show-mask writes text where --json writes JSON", hint="leave one of them out")
    prepared = run(
        sources, output, verifier=verifier, seq_length=seq_length, max_samples=max_samples, seed=seed, num_proc=num_proc
    )
    if as_json:
        show_json(prepared.to_json())
        return
    if shown:
        _show_masks(prepared.folder, verifier, shown)
    _tell(prepared)


def _show_masks(folder: Path, verifier: str, shown: int) -> None:
    from spec_convert.training.masking.masker import Masked
    from spec_convert.training.masking.showing import show_mask
    from spec_convert.training.store.reading import open_store
    from spec_convert.training.tokenizer import open_tokenizer
    from spec_convert.verifier import open_verifier

    tokenizer = open_tokenizer(open_verifier(verifier))
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for sample in islice(open_store(folder), shown):
        masked = Masked(sample.input_ids.tolist(), sample.loss_mask.tolist())
        show(show_mask(tokenizer, masked, colour=colour) + "\n")


def _tell(prepared: Prepared) -> None:
    counts = prepared.accounts.counts
    tokens, learned = counts["tokens"], counts["answer_tokens"]
    show(f"output      {prepared.folder}, {prepared.shards:,} {'shard' if prepared.shards == 1 else 'shards'}")
    show(f"verifier    {prepared.verifier}, masks by {prepared.masks}")
    show(f"samples     {counts['samples']:,} of {counts['rows']:,} rows")
    show(f"tokens      {tokens:,}, of which {learned:,} are answers ({learned / tokens:.1%})")
    show(f"cut         {counts['truncated']:,} samples, at {prepared.seq_length:,} tokens")
    if headless := counts["began_with_answer"]:
        show(f"headless    {headless:,} samples that began with an answer to no question, which is left out")
    if cut := counts["cut_answers"]:
        show(f"unfinished  {cut:,} answers that the verifier did not end itself: their end token is not learned")
    if rewritten := counts["rewritten_answers"]:
        show(f"rewritten   {rewritten:,} answers of which the chat template later drops a part: they are not learned")
    for reason, example in prepared.accounts.examples.items():
        kind, _, name = reason.partition(".")
        label = kind.replace("_", " ")
        show(one_line(f"{label:<11} {counts[reason]:,} {name}: first {example.where}: {example.words}"))
        if example.hint:
            show(f"            {example.hint}")
