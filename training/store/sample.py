"""One conversation as tokens, with what a draft learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """T tokens. ``index``: which sample of the prepared data it is, whatever was left out or put first since."""

    index: int
    input_ids: Tensor  # [T] int64
    loss_mask: Tensor  # [T] bool: the tokens of answers, the end-of-turn token included
    hidden_states: Tensor | None = None  # [T, L, H]: L layers of the verifier in the order of the manifest's ids

    def __len__(self) -> int:
        return len(self.input_ids)
