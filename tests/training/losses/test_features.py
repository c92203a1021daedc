"""The losses on states, against their formulas written out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from spec_convert.training.losses.mix import ON_STATES


def _smooth_l1(apart: float) -> tuple[float, float]:
    """The loss of one number and its derivative."""
    return (apart**2 / 2, apart) if abs(apart) < 1 else (abs(apart) - 0.5, 1.0 if apart > 0 else -1.0)


FORMULAS: dict[str, Callable[[float], tuple[float, float]]] = {
    "smooth_l1": _smooth_l1,
    "mse_states": lambda apart: (apart**2, 2 * apart),
}


def test_every_loss_has_a_formula_by_hand() -> None:
    assert set(FORMULAS) == set(ON_STATES)


@pytest.mark.parametrize("name", ON_STATES)
def test_values_and_gradients_are_those_of_the_formula(name: str) -> None:
    chance = torch.Generator().manual_seed(0)
    guessed, wanted = torch.randn(2, 6, 32, generator=chance, dtype=torch.float64) * 2
    guessed.requires_grad_()
    loss = ON_STATES[name](guessed, wanted)
    by_hand = [
        [FORMULAS[name](guess - want) for guess, want in zip(*pair, strict=True)]
        for pair in zip(guessed.tolist(), wanted.tolist(), strict=True)
    ]
    assert_close(loss.tolist(), [sum(loss for loss, _ in row) / 32 for row in by_hand])
    (towards,) = torch.autograd.grad(loss.sum(), guessed)
    assert_close(towards.tolist(), [[slope / 32 for _, slope in row] for row in by_hand])
    assert torch.autograd.gradcheck(lambda states: ON_STATES[name](states, wanted), guessed)


@pytest.mark.parametrize("name", ON_STATES)
def test_states_in_half_precision_are_compared_in_float32(name: str) -> None:
    guessed, wanted = torch.randn(2, 6, 3000, generator=torch.Generator().manual_seed(0)).bfloat16()
    loss = ON_STATES[name](guessed, wanted)
    assert loss.dtype == torch.float32
    assert_close(loss, ON_STATES[name](guessed.float(), wanted.float()), rtol=0, atol=0)
