"""One packed row: documents end to end, each token with the verifier's states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """S tokens. Document d holds the rows ``bounds[d]`` to ``bounds[d + 1]``; the bounds go from 0 to S.

    Padding is one more document, of which nothing is learned.
    """

    input_ids: Tensor  # [S] int64
    loss_mask: Tensor  # [S] bool: the tokens of answers, the end-of-turn token included
    states: Tensor  # [S, n * Ht]: what the draft is fed, the verifier's states concatenated low to high
    final: Tensor  # [S, Ht]: what the verifier's head reads, its last state after its final norm
    bounds: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def lengths(self) -> Tensor:
        """[documents] int64: the rows of each."""
        return lengths_of(self.bounds, self.input_ids.device)

    @cached_property
    def documents(self) -> Tensor:
        """[S] int64: which document each row belongs to."""
        return documents_of(self.bounds, self.input_ids.device)

    @cached_property
    def positions(self) -> Tensor:
        """[S] int64: the place of each row in its document."""
        starts = torch.tensor(self.bounds[:-1], device=self.input_ids.device)
        return torch.arange(len(self), device=self.input_ids.device) - starts[self.documents]

    def to(self, device: torch.device) -> Batch:
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            loss_mask=self.loss_mask.to(device),
            states=self.states.to(device),
            final=self.final.to(device),
        )


def lengths_of(bounds: Sequence[int], device: torch.device) -> Tensor:
    """[documents] int64: the rows of each."""
    return torch.tensor([end - start for start, end in pairwise(bounds)], device=device)


def documents_of(bounds: Sequence[int], device: torch.device) -> Tensor:
    """[S] int64: which document each row belongs to.

    >>> documents_of((0, 2, 3), torch.device("cpu")).tolist()
    [0, 0, 1]
    """
    lengths = lengths_of(bounds, device)
    return torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)
