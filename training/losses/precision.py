"""What softmaxes and differences of states are computed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """``values`` in float32 when they are narrower, else as they are."""
    import torch

    return values.to(torch.promote_types(values.dtype, torch.float32))
