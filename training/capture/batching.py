"""How texts of different lengths become the rows that a model of transformers reads at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spec_convert.training.capture.engine import Chunk

Batching = Literal["padded", "packed"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some texts of a chunk: `padded`, one a row, or `packed`, all in one row with positions that begin anew."""

    places: list[int]  # of the texts in their chunk
    lengths: list[int]
    input_ids: Tensor  # [B, T]
    position_ids: Tensor | None  # [B, T]; None: each row counts from 0
    tokens: Tensor  # [sum of lengths]: where the texts' tokens lie in the rows, laid end to end


def padded(chunk: Chunk, *, budget: int) -> Iterator[Batch]:
    """Texts of about the same length, padded on the right to at most ``budget`` tokens, or one longer text.

    No mask is needed: a causal model reads no token to the right, and what it makes of the padding is left out.
    """
    for places in _filled(chunk, lambda count, longest, _: count * longest <= budget):
        lengths = [len(chunk[place]) for place in places]
        width = max(lengths)
        input_ids = torch.zeros(len(places), width, dtype=torch.int64)
        for row, place in zip(input_ids, places, strict=True):
            row[: len(chunk[place])] = torch.tensor(chunk[place])
        real = torch.arange(width) < torch.tensor(lengths)[:, None]
        yield Batch(places, lengths, input_ids, None, real.flatten().nonzero().flatten())


def packed(chunk: Chunk, *, budget: int) -> Iterator[Batch]:
    """Texts end to end in one row of at most ``budget`` tokens, or one longer text.

    Where the positions begin anew, transformers lets no token attend to those before, by a mask of the whole row: that
    costs more than the little padding of texts of about the same length, and less than that of a few of any length.
    """
    for places in _filled(chunk, lambda _count, _longest, total: total <= budget):
        texts = [torch.tensor(chunk[place]) for place in places]
        lengths = list(map(len, texts))
        positions = torch.cat([torch.arange(length) for length in lengths])
        yield Batch(places, lengths, torch.cat(texts)[None], positions[None], torch.arange(sum(lengths)))


BATCHINGS: dict[Batching, Callable[..., Iterator[Batch]]] = {"padded": padded, "packed": packed}


def _filled(chunk: Chunk, fits: Callable[[int, int, int], bool]) -> Iterator[list[int]]:
    """Places of texts, short ones first, as many at once as ``fits(how many, the longest, all tokens)`` allows."""
    some: list[int] = []
    total = 0
    for place in sorted(range(len(chunk)), key=lambda place: len(chunk[place])):
        length = len(chunk[place])
        if some and not fits(len(some) + 1, length, total + length):
            yield some
            some, total = [], 0
        some.append(place)
        total += length
    if some:
        yield some
