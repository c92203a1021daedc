"""A masked row as text in which one sees what is learned."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Any, NamedTuple

import click

from spec_convert.reports.escape import one_line
from spec_convert.training.masking.masker import Masked
from spec_convert.training.masking.rendering import common_start


class Run(NamedTuple):
    """Tokens ``start`` to ``end`` (exclusive), all learned or none of them."""

    start: int
    end: int
    learned: bool


def show_mask(tokenizer: Any, masked: Masked, *, colour: bool) -> str:
    """A line of counts, then the row's text: learned runs green and underlined, the rest dim, or learned runs in ⟦ ⟧.

    A character whose bytes fall on both sides of a boundary is shown after it.
    """
    runs = _runs(masked.loss_mask)
    whole = _decoded(tokenizer, masked.input_ids)
    # Each run by itself would lose the blank that many tokenizers drop at the beginning of a text.
    cuts = [0, *(len(common_start(whole, _decoded(tokenizer, masked.input_ids[: run.end]))) for run in runs)]
    pieces = [_safe(whole[start:end]) for start, end in pairwise(cuts)]
    text = "".join(_marked(piece, run.learned, colour) for piece, run in zip(pieces, runs, strict=True))
    return f"{_head(runs)}\n{text}"


def _runs(mask: list[bool]) -> list[Run]:
    """The row from end to end, without gaps."""
    runs: list[Run] = []
    for learned, group in groupby(mask):
        start = runs[-1].end if runs else 0
        runs.append(Run(start, start + len(list(group)), learned))
    return runs


def _head(runs: list[Run]) -> str:
    learned = [run for run in runs if run.learned]
    ranges = ", ".join(f"{run.start}:{run.end}" for run in learned)
    total, taught = (sum(run.end - run.start for run in some) for some in (runs, learned))
    spans = f"{len(learned)} span{'' if len(learned) == 1 else 's'}"
    return f"{total} tokens, {taught} learned, {spans}" + (f": {ranges}" if ranges else "")


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _safe(text: str) -> str:
    """Line ends stay; terminal escapes and their like are spelled out."""
    return "\n".join(map(one_line, text.split("\n")))


def _marked(piece: str, learned: bool, colour: bool) -> str:
    if not colour:
        return f"⟦{piece}⟧" if learned else piece
    return click.style(piece, fg="green", underline=True) if learned else click.style(piece, dim=True)
