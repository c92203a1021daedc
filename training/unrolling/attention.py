"""Attention of unrolled chains, in tiles: exact, and never larger than one tile of a document's own square.

At step k the chain of row i sees the keys of step 0 up to row i, in its document, and of each later step its own key
alone: what a draft with a cache sees that has drafted k tokens from there. With steps 0, 1 and 2 and four rows:

    step 0:  x . . .     step 1: x . . .  x . . .     step 2: x . . .  x . . .  x . . .
             x x . .             x x . .  . x . .             x x . .  . x . .  . x . .
             x x x .             x x x .  . . x .             x x x .  . . x .  . . x .
             x x x x             x x x x  . . . x             x x x x  . . . x  . . . x

The probabilities are computed anew for the gradients instead of being kept, as in FlashAttention (arXiv 2205.14135).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

TILE = 128  # queries at once: a document's scores are at most [heads, TILE, its length]


class Chains:
    """An `Attend` (see `models.layers`) for one packed row.

    ``bounds``: of its documents, from 0 to S. ``rows`` [A] int64, ascending: those of the steps after the first.
    """

    def __init__(self, bounds: Sequence[int], rows: Tensor) -> None:
        self.bounds, self.rows = bounds, rows
        self._first: dict[int, tuple[Tensor, Tensor]] = {}
        self._later: dict[int, list[Tensor]] = {}  # key, value, key, value, … of the later steps
        self._spans: dict[bool, list[Span]] = {}

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        first = layer not in self._first
        if first:
            self._first[layer] = key[0], value[0]
            self._later[layer] = []
        else:
            self._later[layer] += [key[0], value[0]]
        given = (query[0], *self._first[layer], *self._later[layer])
        mixed: Tensor = _Attention.apply(self._spans_of(first), *given)  # type: ignore[no-untyped-call]
        return mixed[None]

    def _spans_of(self, first: bool) -> list[Span]:
        if first not in self._spans:
            rows = torch.arange(self.bounds[-1], device=self.rows.device) if first else self.rows
            self._spans[first] = list(_spans(self.bounds, rows))
        return self._spans[first]


class Span(NamedTuple):
    """Queries ``begin`` to ``end`` see the keys ``start`` to ``stop`` that ``hidden`` [queries, keys] does not hide."""

    begin: int
    end: int
    start: int
    stop: int
    hidden: Tensor


def _spans(bounds: Sequence[int], rows: Tensor) -> Iterator[Span]:
    """Tiles of queries, each within one document, with the keys up to its last row."""
    asked = rows.cpu()
    edges = torch.searchsorted(asked, torch.tensor(bounds)).tolist()
    for start, (first, last) in zip(bounds[:-1], pairwise(edges), strict=True):
        for begin in range(first, last, TILE):
            tile = asked[begin : min(begin + TILE, last)]
            stop = int(tile[-1]) + 1
            hidden = torch.arange(start, stop) > tile[:, None]
            yield Span(begin, begin + len(tile), start, stop, hidden.to(rows.device))


class _Attention(torch.autograd.Function):
    """Queries [heads, A, D]; keys and values of step 0 [kv heads, S, D], of each later step [kv heads, A, D]."""

    @staticmethod
    def forward(ctx: Any, spans: list[Span], query: Tensor, key: Tensor, value: Tensor, *later: Tensor) -> Tensor:
        keys, values = later[::2], later[1::2]
        mixed = query.new_zeros(query.shape)
        normaliser = query.new_zeros(query.shape[:2], dtype=_exact(query))
        for span in spans:
            there = slice(span.begin, span.end)
            asked = _grouped(query[:, there], key)
            scores = _scores(asked, key, [one[:, there] for one in keys], span)
            total = scores.logsumexp(dim=-1)
            seen = (scores - total[..., None]).exp().to(value.dtype)
            mixed[:, there] = _mix(seen, value, [one[:, there] for one in values], span).flatten(0, 1)
            normaliser[:, there] = total.flatten(0, 1)
        ctx.spans = spans
        ctx.save_for_backward(query, key, value, mixed, normaliser, *later)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (wanted,) = gradients
        query, key, value, mixed, normaliser, *later = ctx.saved_tensors
        keys, values = later[::2], later[1::2]
        towards = [torch.zeros_like(tensor) for tensor in (query, key, value, *later)]
        for_query, for_key, for_value, *for_later = towards
        scale = query.shape[-1] ** -0.5
        for span in ctx.spans:
            there, seen_rows = slice(span.begin, span.end), slice(span.start, span.stop)
            size = span.stop - span.start
            asked, asked_of = _grouped(query[:, there], key), _grouped(wanted[:, there], key)
            scores = _scores(asked, key, [one[:, there] for one in keys], span)
            seen = (scores - _grouped(normaliser[:, there, None], key)).exp().to(value.dtype)
            # The gradient of a softmax: probability times what its value would add, less what all add on average.
            average = (asked_of * _grouped(mixed[:, there], key)).sum(-1, keepdim=True)
            adds = _flat(asked_of) @ value[:, seen_rows].mT
            pull = seen[..., :size] * (_unflat(adds, asked) - average) * scale
            for_query[:, there] += _unflat(_flat(pull) @ key[:, seen_rows], asked).flatten(0, 1)
            for_key[:, seen_rows] += _flat(pull).mT @ _flat(asked)
            for_value[:, seen_rows] += _flat(seen[..., :size]).mT @ _flat(asked_of)
            for step, (own_key, own_value) in enumerate(zip(keys, values, strict=True)):
                own = seen[..., size + step, None]
                pull = own * ((asked_of * own_value[:, None, there]).sum(-1, keepdim=True) - average) * scale
                for_query[:, there] += (pull * own_key[:, None, there]).flatten(0, 1)
                for_later[2 * step][:, there] += (pull * asked).sum(dim=1)
                for_later[2 * step + 1][:, there] += (own * asked_of).sum(dim=1)
        return None, *towards


def _scores(asked: Tensor, key: Tensor, keys: Sequence[Tensor], span: Span) -> Tensor:
    """[kv heads, group, queries, keys of step 0 and one of each later step], in float32 at least."""
    scale = asked.shape[-1] ** -0.5
    first = _flat(asked) @ key[:, span.start : span.stop].mT
    scores = _unflat(first.to(_exact(asked)), asked) * scale
    scores.masked_fill_(span.hidden, float("-inf"))
    own = [(asked * one[:, None]).sum(-1, keepdim=True).to(scores.dtype) * scale for one in keys]
    return torch.cat((scores, *own), dim=-1) if own else scores


def _mix(seen: Tensor, value: Tensor, values: Sequence[Tensor], span: Span) -> Tensor:
    """The values, each by how much of it is seen: [kv heads, group, queries, D]."""
    size = span.stop - span.start
    mixed = _unflat(_flat(seen[..., :size]) @ value[:, span.start : span.stop], seen)
    for step, own in enumerate(values):
        mixed = mixed + seen[..., size + step, None] * own[:, None]
    return mixed


def _grouped(heads: Tensor, key: Tensor) -> Tensor:
    """[heads, …] as [kv heads, those that share one, …]."""
    return heads.reshape(key.shape[0], -1, *heads.shape[1:])


def _flat(tensor: Tensor) -> Tensor:
    """[kv heads, group, queries, …] as [kv heads, group * queries, …], for one product a kv head."""
    return tensor.flatten(1, 2)


def _unflat(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.reshape(*like.shape[:3], tensor.shape[-1])


def _exact(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
