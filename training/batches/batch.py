"""One packed row: documents end to end, each token with the verifier's states."""

from __future__ import annotations

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
    def documents(self) -> Tensor:
        """[S] int64: which document each row belongs to."""
        lengths = torch.tensor([end - start for start, end in pairwise(self.bounds)])
        return torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(self.input_ids.device)

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
