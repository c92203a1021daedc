"""Chains ordered by the token after which they guess, so that the verifier's word is asked for once for all steps.

At step k the chain of row i guesses after token i + 1 + k:

    after token    5    6    7
    step 0: row    4    5    6
    step 1: row    3    4    5
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from spec_convert.training.unrolling.unroll import Step


class Layout:
    """Of ``counted`` [K, S] bool, the rows that count at each step: the U tokens after which any of them guesses."""

    def __init__(self, counted: Tensor) -> None:
        self.counted = counted
        steps, length = counted.shape
        after = counted.new_zeros(length)
        for step in range(min(steps, length - 1)):
            after[step + 1 :] |= counted[step, : length - step - 1]
        self.after = after.nonzero()[:, 0]  # [U]

    def __len__(self) -> int:
        return len(self.after)

    @cached_property
    def rows(self) -> Tensor:
        """[K, U] the row that guesses after each token; below zero where it would lie before the text."""
        return self.after - 1 - torch.arange(len(self.counted), device=self.after.device)[:, None]

    @cached_property
    def there(self) -> Tensor:
        """[K, U] bool: whether that row counts."""
        return self.counted.gather(1, self.rows.clamp(min=0)) & (self.rows >= 0)

    def of(self, chain: Sequence[Step], name: str) -> Tensor:
        """[K, U, H] the states ``name`` of each step. Where no row counts, those of some other row or step."""
        parts = []
        for number, rows in enumerate(self.rows):
            step = chain[min(number, len(chain) - 1)]
            place = torch.searchsorted(step.rows, rows.contiguous()).clamp(max=len(step.rows) - 1)
            parts.append(getattr(step, name)[place])
        return torch.stack(parts)

    def by_row(self, values: Tensor) -> Tensor:
        """[K, U] of the rows that count, by the token after which was guessed, as [K, S] by row; zero elsewhere."""
        placed = values.new_zeros(self.counted.shape)
        return placed.masked_scatter(self.counted, values[self.there])
