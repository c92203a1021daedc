"""How much of the answers the draft's vocabulary covers, by its size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spec_convert.reports.charts import Axis, Series, columns
from spec_convert.reports.markup import Element
from spec_convert.reports.page import facts, figure, paragraph, section, side_by_side
from spec_convert.training.vocabulary.files import KeyFile


def vocabulary_section(vocabulary: KeyFile) -> Element:
    return section("The draft's vocabulary", side_by_side(_chart(vocabulary), facts(list(_facts(vocabulary)))))


def whole_vocabulary() -> Element:
    return section("The draft's vocabulary", paragraph("It is the verifier's whole one: there is no token to choose."))


def _chart(vocabulary: KeyFile) -> Element:
    title = "Share of the answers' tokens that a draft vocabulary covers"
    covered = vocabulary.coverage
    if not covered:
        return figure(title, "No size was counted.")
    chart = columns(
        f"{title}, by its size",
        groups=[_size(at.size, vocabulary) for at in covered],
        grouped_by="tokens of the draft",
        series=[
            Series(
                name="covered",
                values=[at.share if 0 <= at.share <= 1 else None for at in covered],
                hover=[f"{at.size:,} tokens cover {_share(at.share)} of the answers' tokens" for at in covered],
            )
        ],
        axis=Axis(label="share covered", top=1.0, tick="{:.0%}".format, value=_share),
    )
    return figure(title, "Of each size the tokens that answers hold most often. What is not covered is a miss.", chart)


def _size(size: int, vocabulary: KeyFile) -> str:
    return f"{size:,}: this one" if size == vocabulary.draft_vocab_size else f"{size:,}"


def _facts(vocabulary: KeyFile) -> Iterator[tuple[str, str]]:
    yield "Draft's tokens", f"{vocabulary.draft_vocab_size:,} of the verifier's {vocabulary.target_vocab_size:,}"
    yield "Counted", f"{vocabulary.answer_tokens:,} tokens of answers, {vocabulary.distinct_tokens:,} distinct"
    yield "Not in any answer", f"{vocabulary.filled:,} of the draft's tokens: the smallest of the other ids"
    yield "End of an answer", _ends(vocabulary)
    yield "sha256 of the counts", vocabulary.token_freq_sha256


def _ends(vocabulary: KeyFile) -> str:
    if vocabulary.end_tokens is None:
        return "not known: the verifier was not at hand"
    kept, ends = vocabulary.end_tokens_kept or (), vocabulary.end_tokens
    return f"the verifier's: {_listed(ends)}; the draft has {_listed(kept)}"


def _listed(tokens: Sequence[int]) -> str:
    return ", ".join(map(str, tokens)) or "none"


def _share(value: float) -> str:
    """What is not quite all is not called all."""
    return f"{100 * value:.2f}%" if value == 1 else f"{min(100 * value, 99.99):.2f}%"
