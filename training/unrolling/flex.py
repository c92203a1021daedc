"""The attention of chains on a GPU: step 0 by flex_attention, which skips what documents hide; the rest added to it.

Keys of later steps are one a row, so they need no kernel: their scores join the normaliser that flex_attention returns.
flex_attention has no backward on a CPU, where `attention.Chains` computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from spec_convert.training.batches.batch import documents_of


class FlexChains:
    """An `Attend` for one packed row, like `attention.Chains`; kernels are compiled once for one number of rows."""

    def __init__(self, bounds: Sequence[int], rows: Tensor) -> None:
        self.bounds, self.rows = bounds, rows
        self._first: dict[int, tuple[Tensor, Tensor]] = {}
        self._later: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self._masks: dict[int, Any] = {}  # by the number of rows

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        first = layer not in self._first
        if first:
            self._first[layer], self._later[layer] = (key, value), []
        else:
            self._later[layer].append((key, value))
        attend = _compiled() if query.is_cuda else _flex_attention()
        mixed, normaliser = attend(
            query, *self._first[layer], block_mask=self._mask(first), enable_gqa=True, return_lse=True
        )
        return mixed if first else _joined(query, mixed, normaliser, self._later[layer])

    def _mask(self, first: bool) -> Any:
        from torch.nn.attention.flex_attention import create_block_mask

        length, device = self.bounds[-1], self.rows.device
        rows = torch.arange(length, device=device) if first else self.rows
        if len(rows) not in self._masks:
            document = documents_of(self.bounds, device)

            def seen(batch: Tensor, head: Tensor, asked: Tensor, key: Tensor) -> Tensor:
                row = rows[asked]
                return (row >= key) & (document[row] == document[key])

            self._masks[len(rows)] = create_block_mask(seen, None, None, len(rows), length, device=str(device))
        return self._masks[len(rows)]


def _joined(query: Tensor, mixed: Tensor, normaliser: Tensor, later: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """[1, heads, A, D]: what step 0 gave, and the value of each later step by its score beside all others'."""
    share = query.shape[1] // later[0][0].shape[1]  # query heads of one kv head
    keys, values = ([step[part].repeat_interleave(share, dim=1) for step in later] for part in (0, 1))
    scores = torch.stack([(query * key).sum(-1).float() for key in keys], dim=-1) * query.shape[-1] ** -0.5
    total = torch.logaddexp(normaliser, scores.logsumexp(dim=-1))
    mixed = mixed * (normaliser - total).exp()[..., None].to(mixed.dtype)
    for seen, value in zip((scores - total[..., None]).exp().to(mixed.dtype).unbind(-1), values, strict=True):
        mixed = mixed + seen[..., None] * value
    return mixed


def _flex_attention() -> Callable[..., tuple[Tensor, Tensor]]:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor]]:
    return torch.compile(_flex_attention())
