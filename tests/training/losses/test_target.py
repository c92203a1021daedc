"""The verifier's distributions, and what they are computed in."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from spec_convert.training.losses.target import LOG_FLOOR, Target

WHOLE = torch.randn(4, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
PRUNED = Target(WHOLE[:, ::2], WHOLE.logsumexp(-1))


def test_the_true_probabilities_of_a_pruned_vocabulary_are_the_verifiers_own() -> None:
    assert_close(PRUNED.true, WHOLE.softmax(-1)[:, ::2])
    assert (PRUNED.true.sum(-1) < 0.99).all()


def test_the_renormalised_ones_sum_to_one_in_the_same_proportions() -> None:
    assert_close(PRUNED.renormalised, PRUNED.true / PRUNED.true.sum(-1, keepdim=True))
    assert_close(PRUNED.log_renormalised, PRUNED.renormalised.log())


def test_over_a_full_vocabulary_they_are_the_same() -> None:
    target = Target(WHOLE, WHOLE.logsumexp(-1))
    assert_close(target.true, target.renormalised)
    assert_close(target.log_true, target.log_renormalised)


def test_nothing_is_computed_in_half_precision_and_nothing_twice() -> None:
    half = WHOLE.bfloat16()
    target, wide = (Target(logits, half.float().logsumexp(-1)) for logits in (half, half.float()))
    for name in ("renormalised", "log_renormalised", "true", "log_true"):
        assert getattr(target, name).dtype == torch.float32
        assert_close(getattr(target, name), getattr(wide, name), rtol=0, atol=0)
        assert getattr(target, name) is getattr(target, name)
    assert PRUNED.true.dtype == PRUNED.renormalised.dtype == torch.float64


def test_what_is_never_said_has_a_finite_logarithm() -> None:
    logits = torch.tensor([[0.0, -torch.inf, -1e4]])
    target = Target(logits, logits.logsumexp(-1))
    assert target.log_true.tolist() == target.log_renormalised.tolist() == [[0, LOG_FLOOR, LOG_FLOOR]]
    assert target.renormalised.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize(
    ("logits", "normaliser", "why"),
    [
        (torch.zeros(3, 5, requires_grad=True), None, "gradient"),
        (torch.zeros(3, 5), torch.zeros(1), "one normaliser for each row"),
        (torch.zeros(3, 5), torch.zeros(3, 1), "one normaliser for each row"),
        (torch.zeros(3, 5), torch.zeros(3, dtype=torch.bfloat16), "half precision"),
    ],
)
def test_a_target_that_would_be_silently_wrong_is_refused(
    logits: torch.Tensor, normaliser: torch.Tensor | None, why: str
) -> None:
    with pytest.raises(AssertionError, match=why):
        Target(logits, normaliser)
