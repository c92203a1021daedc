"""Losses on states: how far the guessed states of the verifier are from its own, row by row; means over H."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spec_convert.training.losses.precision import at_least_float32

if TYPE_CHECKING:
    from torch import Tensor


def smooth_l1(guessed: Tensor, wanted: Tensor) -> Tensor:
    """[r, H] twice -> [r]: half the square of a difference below 1, and the difference less a half above it.

    EAGLE's and HASS's regression (arXiv 2401.15077, 2408.15766).
    """
    from torch.nn.functional import smooth_l1_loss

    return smooth_l1_loss(at_least_float32(guessed), at_least_float32(wanted), reduction="none").mean(-1)


def mse_states(guessed: Tensor, wanted: Tensor) -> Tensor:
    """[r, H] twice -> [r]: the squared difference."""
    return (at_least_float32(guessed) - at_least_float32(wanted)).square().mean(-1)
