"""`spec-convert vocab`: the tokens that a draft may propose, chosen by how often answers hold them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spec_convert.cli.output import json_option, show, show_json, show_table, show_warning
from spec_convert.reports.escape import one_line

if TYPE_CHECKING:
    from spec_convert.training.vocabulary.files import KeyFile
    from spec_convert.training.vocabulary.making import Made


@click.command(short_help="Choose the tokens that a draft may propose.")
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--draft-vocab-size", metavar="N", type=click.IntRange(min=1), default=32000, show_default=True,
    help="How many tokens the draft has.",
)  # fmt: skip
@click.option("--verifier", metavar="BASE", help="The model whose tokens DATA holds. Default: as DATA says.")
@click.option(
    "--target-vocab-size", metavar="V", type=click.IntRange(min=1),
    help="The verifier's vocabulary, for DATA that does not say it.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace another vocabulary in OUTPUT.")
@json_option
def vocab(data: Path, output: Path, as_json: bool, **flags: Any) -> None:
    """Count the tokens of the answers in DATA, and write into the folder OUTPUT which of them a draft has.

    DATA is what `prepare`, `generate` or `collect` wrote, a folder of the community's data_0.pt, data_1.pt, …, or a
    token_freq.pt. Only tokens of answers count, as the loss masks say.

    OUTPUT gets d2t.npy (token i of the draft is the verifier's i + d2t[i]), t2d.npy (whether the draft has a token),
    token_freq.pt (the counts) and vocab.json (what they are of, and how much of the answers the draft's tokens cover).
    """
    from spec_convert.training.vocabulary.making import make_vocabulary

    made = make_vocabulary(data, output, **flags)
    if as_json:
        show_json(made.to_json())
    else:
        _tell(made)
    _warn(made.facts)


def _tell(made: Made) -> None:
    facts = made.facts
    of = facts.tokenizer.name if facts.tokenizer else "an unnamed verifier"
    show(one_line(f"answers     {facts.answer_tokens:,} tokens, {facts.distinct_tokens:,} distinct, of {of}"))
    show(f"vocabulary  {facts.draft_vocab_size:,} of {facts.target_vocab_size:,} tokens")
    show(f"output      {made.output}" + ("" if made.written else ": it is there already"))
    show("")
    rows = [(f"{at.size:,}", f"{at.share:.4%}") for at in facts.coverage]
    show_table(("draft tokens", "share of the answers' tokens"), rows)


def _warn(facts: KeyFile) -> None:
    if facts.filled:
        show_warning(
            f"answers hold only {facts.distinct_tokens:,} distinct tokens: {facts.filled:,} of the draft's are the "
            "smallest of the other ids",
            "count more data, or choose a smaller --draft-vocab-size",
        )
    if facts.end_tokens and not facts.end_tokens_kept:
        ends = ", ".join(map(str, facts.end_tokens))
        show_warning(
            f"the draft cannot propose the end of an answer: none of the verifier's end tokens ({ends}) is in it",
            "check that the answers in DATA are whole, and that their loss masks hold the end-of-turn token",
        )
