"""The losses on logits: against their formulas written out by hand, against each other, and at the ends of float32."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from spec_convert.training.losses import distributions
from spec_convert.training.losses.mix import NEED_NORMALISER, ON_LOGITS
from spec_convert.training.losses.target import Target

from .by_hand import FORMULAS, Row, gradient, value

DIVERGENCES = ("forward_kl", "reverse_kl", "jsd", "tv", "lk_alpha", "lk_lambda")  # zero for a perfect draft
INF = math.inf


def rows_of(seed: int, *, tokens: int, kept: int, rows: int = 4) -> list[Row]:
    chance = random.Random(seed)

    def logits(count: int) -> tuple[float, ...]:
        return tuple(chance.gauss(0, 2.5) for _ in range(count))

    return [Row(logits(kept), logits(tokens), tuple(sorted(chance.sample(range(tokens), kept)))) for _ in range(rows)]


def tensors(rows: list[Row]) -> tuple[Tensor, Target]:
    draft = torch.tensor([row.draft for row in rows], dtype=torch.float64, requires_grad=True)
    seen = torch.tensor([row.seen for row in rows], dtype=torch.float64)
    return draft, Target(seen, torch.tensor([row.normaliser for row in rows], dtype=torch.float64))


def full(verifier: Tensor) -> Target:
    """Of a draft that has the verifier's whole vocabulary."""
    return Target(verifier, verifier.logsumexp(-1))


def drawn(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 3


def slope(name: str, draft: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """The loss of each row, and its gradient."""
    draft = draft.detach().requires_grad_()
    loss = ON_LOGITS[name](draft, target)
    return loss.detach(), torch.autograd.grad(loss.sum(), draft)[0]


def test_every_loss_has_a_formula_by_hand() -> None:
    assert set(FORMULAS) == set(ON_LOGITS)


@pytest.mark.parametrize("kept", [40, 25, 12, 7, 1])
@pytest.mark.parametrize("name", ON_LOGITS)
def test_values_and_gradients_are_those_of_the_formula(name: str, kept: int) -> None:
    rows = rows_of(kept, tokens=40, kept=kept)
    loss, towards = slope(name, *tensors(rows))
    assert_close(loss.tolist(), [value(name, row) for row in rows], rtol=1e-12, atol=1e-12)
    assert_close(towards.tolist(), [gradient(name, row) for row in rows], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", sorted(set(ON_LOGITS) - {"lk_lambda"}))  # part of whose gradient is stopped
def test_the_gradient_is_the_derivative(name: str) -> None:
    draft, target = tensors(rows_of(3, tokens=30, kept=20))
    assert torch.autograd.gradcheck(lambda logits: ON_LOGITS[name](logits, target), draft)


@pytest.mark.parametrize("name", ON_LOGITS)
def test_in_float32_a_long_row_is_as_in_float64(name: str) -> None:
    draft, verifier = drawn(3, 50_000, seed=1), drawn(3, 50_000, seed=2)
    exact = slope(name, draft, full(verifier))
    rough = slope(name, draft.float(), full(verifier.float()))
    assert rough[0].dtype == rough[1].dtype == torch.float32
    assert_close(rough[0].double(), exact[0], rtol=1e-5, atol=1e-6)
    assert_close(rough[1].double(), exact[1], rtol=1e-3, atol=1e-7)


def test_soft_ce_is_forward_kl_and_the_entropy_with_the_same_gradient() -> None:
    draft, target = drawn(5, 60, seed=1), full(drawn(5, 60, seed=2))
    p = target.renormalised
    (ce, of_ce), (kl, of_kl) = slope("soft_ce", draft, target), slope("forward_kl", draft, target)
    assert_close(ce - kl, -(p * p.log()).sum(-1))
    assert_close(of_ce, of_kl)
    assert_close(of_ce, draft.softmax(-1) - p)


def test_the_gradient_of_reverse_kl_is_what_calculus_says() -> None:
    draft, target = drawn(5, 60, seed=1), full(drawn(5, 60, seed=2))
    q, apart = draft.softmax(-1), draft.log_softmax(-1) - target.renormalised.log()
    kl, towards = slope("reverse_kl", draft, target)
    assert_close(towards, q * (apart - kl[:, None]))


def test_forward_and_reverse_kl_change_places_with_draft_and_verifier_and_jsd_stays() -> None:
    one, other = drawn(5, 60, seed=1), drawn(5, 60, seed=2)
    assert_close(distributions.forward_kl(one, full(other)), distributions.reverse_kl(other, full(one)))
    assert_close(distributions.jsd(one, full(other)), distributions.jsd(other, full(one)))


def test_tv_over_a_full_vocabulary_is_half_the_l1_distance() -> None:
    draft, verifier = drawn(5, 60, seed=1), drawn(5, 60, seed=2)
    assert_close(distributions.tv(draft, full(verifier)), (draft.softmax(-1) - verifier.softmax(-1)).abs().sum(-1) / 2)


def test_over_a_pruned_vocabulary_the_best_draft_still_misses_what_it_cannot_say() -> None:
    verifier = drawn(5, 60, seed=2)
    target = Target(verifier[:, :20], verifier.logsumexp(-1))
    inside = verifier.softmax(-1)[:, :20].sum(-1)
    assert inside.max() < 0.9
    best = verifier[:, :20]  # as the verifier, renormalised: at least p_true everywhere
    assert_close(distributions.overlap(best, target), inside)
    assert_close(distributions.tv(best, target), 1 - inside)
    assert_close(distributions.lk_alpha(best, target), -inside.log())
    assert_close(distributions.forward_kl(best, target), torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_perfect_draft_is_at_zero_and_stays_there(name: str, dtype: torch.dtype) -> None:
    verifier = drawn(5, 300, seed=4, dtype=dtype)
    loss, towards = slope(name, verifier, full(verifier))
    near = 20 * torch.finfo(dtype).eps
    assert loss.abs().max() < near
    if name in NEED_NORMALISER:  # of min(p, q), which has a corner here: rounding decides which slope, none is steep
        assert towards.abs().sum(-1).max() <= 0.5 + near
    else:
        assert towards.abs().max() < near


def test_where_all_probabilities_tie_tv_has_no_gradient_though_each_side_has() -> None:
    even = torch.zeros(1, 4, dtype=torch.float64)
    target = full(even)
    assert target.true.tolist() == even.softmax(-1).tolist()
    step = torch.tensor([[1e-6, 0, 0, 0]], dtype=torch.float64)
    before, after = (slope("tv", even + side, target)[1] for side in (-step, step))
    assert before[0, 0] < -0.1 < 0.1 < after[0, 0]
    assert slope("tv", even, target)[1].tolist() == [[0, 0, 0, 0]]


def test_tv_is_what_is_left_of_alpha() -> None:
    draft, verifier = drawn(5, 60, seed=1), drawn(5, 60, seed=2)
    for kept in (60, 20):
        target = Target(verifier[:, :kept], verifier.logsumexp(-1))
        left = 1 - distributions.overlap(draft[:, :kept], target)
        assert_close(distributions.tv(draft[:, :kept], target), left)


def test_the_weight_of_kl_in_lk_lambda_falls_with_alpha_and_eta() -> None:
    draft, target = drawn(5, 60, seed=1), full(drawn(5, 60, seed=2))
    assert_close(distributions.lk_lambda(draft, target, eta=0), distributions.forward_kl(draft, target))
    assert_close(distributions.lk_lambda(draft, target, eta=1e6), distributions.tv(draft, target))

    apart = torch.eye(4, dtype=torch.float64) * 40  # draft and verifier are each sure of another token
    elsewhere = full(apart.roll(1, dims=0))
    assert distributions.overlap(apart, elsewhere).max() < 1e-15
    for found, wanted in zip(slope("lk_lambda", apart, elsewhere), slope("forward_kl", apart, elsewhere), strict=True):
        assert_close(found, wanted)


@pytest.mark.parametrize("name", sorted(set(ON_LOGITS) - {"mse_logits"}))
def test_a_constant_added_to_all_logits_changes_nothing(name: str) -> None:
    draft, target = drawn(5, 60, seed=1), full(drawn(5, 60, seed=2))
    (loss, towards), (moved, also) = slope(name, draft, target), slope(name, draft + 7, target)
    assert_close(loss, moved)
    assert_close(towards, also)
    assert_close(towards.sum(-1), torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("name", ON_LOGITS)
def test_a_step_down_the_gradient_makes_the_loss_smaller(name: str) -> None:
    draft, target = drawn(5, 60, seed=1), full(drawn(5, 60, seed=2))
    loss, towards = slope(name, draft, target)
    assert (ON_LOGITS[name](draft - 0.05 * towards, target) < loss).all()


@pytest.mark.parametrize("name", ON_LOGITS)
def test_just_those_that_are_about_acceptance_need_the_whole_vocabulary(name: str) -> None:
    draft, verifier = drawn(2, 9, seed=1), drawn(2, 9, seed=2)
    if name in NEED_NORMALISER:
        with pytest.raises(ValueError, match="alone do not say"):
            ON_LOGITS[name](draft, Target(verifier))
    else:
        whole = ON_LOGITS[name](draft, Target(verifier, verifier.logsumexp(-1) + 1))
        assert_close(ON_LOGITS[name](draft, Target(verifier)), whole, rtol=0, atol=0)


EXTREMES = {
    "each is sure of another token": ([[9e3, 0.0, 0.0]], [[0.0, 9e3, 0.0]]),
    "both are sure of the same": ([[9e3, 0.0, 0.0]], [[9e3, 0.0, 0.0]]),
    "the verifier never says what the draft says": ([[90.0, 0.0, 0.0]], [[-INF, 0.0, 1.0]]),
    "the verifier says one thing only": ([[0.0, 0.0, 0.0]], [[-INF, 0.0, -INF]]),
    "it never says what the draft never says": ([[-9e3, 0.0, 0.0]], [[-INF, 0.0, 1.0]]),
    "all is equally likely": ([[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]),
    "one token": ([[3.0]], [[-2.0]]),
}


@pytest.mark.parametrize("case", EXTREMES)
@pytest.mark.parametrize("name", ON_LOGITS)
def test_values_and_gradients_are_finite_at_the_ends_of_float32(name: str, case: str) -> None:
    draft, verifier = (torch.tensor(logits) for logits in EXTREMES[case])
    if name == "mse_logits":
        verifier = verifier.clamp(min=-9e3)
    loss, towards = slope(name, draft, full(verifier))
    assert loss.isfinite().all()
    assert towards.isfinite().all()


def test_reverse_kl_to_a_token_that_is_never_said_costs_a_hundred_nats() -> None:
    draft, target = torch.tensor([[90.0, 0.0, 0.0]]), full(torch.tensor([[-INF, 0.0, 1.0]]))
    assert distributions.reverse_kl(draft, target).item() == pytest.approx(100)


def test_lk_alpha_draws_a_draft_that_overlaps_with_nothing() -> None:
    """In float32 alpha itself is 0 here: its logarithm would be infinite and its gradient nothing."""
    draft, target = torch.tensor([[95.0, 0.0, -200.0]]), full(torch.tensor([[0.0, 200.0, 95.0]]))
    assert distributions.overlap(draft, target) < 1e-40
    loss, towards = slope("lk_alpha", draft, target)
    assert loss.item() == pytest.approx(95, abs=1)
    assert towards[0, 0] > 0.2  # down, what the verifier does not say
    assert towards[0, 1] < -0.2  # up, what it does


def test_top_k_of_a_vocabulary_of_ten_is_soft_ce_and_of_more_is_less() -> None:
    draft, verifier = drawn(5, 30, seed=1), drawn(5, 30, seed=2)
    few, many = Target(verifier[:, :10]), Target(verifier)
    assert_close(distributions.top_k(draft[:, :10], few), distributions.soft_ce(draft[:, :10], few))
    assert (distributions.top_k(draft, many) < distributions.soft_ce(draft, many)).all()


def test_hard_ce_is_soft_ce_of_a_verifier_that_is_sure() -> None:
    draft, verifier = drawn(5, 30, seed=1), drawn(5, 30, seed=2)
    assert_close(distributions.hard_ce(draft, Target(verifier)), distributions.soft_ce(draft, Target(verifier * 1e4)))


LOGITS = st.lists(st.tuples(*[st.floats(-60, 60, allow_subnormal=False)] * 2), min_size=2, max_size=12)


@given(LOGITS)
def test_the_divergences_bound_each_other(pairs: list[tuple[float, float]]) -> None:
    draft, verifier = torch.tensor(pairs, dtype=torch.float64).T[:, None]
    of = {name: ON_LOGITS[name](draft, full(verifier)).item() for name in DIVERGENCES}
    slack = 1e-9
    assert all(-slack <= divergence < INF for divergence in of.values())
    assert of["tv"] <= 1 + slack
    assert of["jsd"] <= math.log(2) * min(1, of["tv"]) + slack  # Lin
    assert 2 * of["tv"] ** 2 <= min(of["forward_kl"], of["reverse_kl"]) + slack  # Pinsker
    assert of["tv"] <= of["lk_alpha"] + slack
    assert of["lk_alpha"] == pytest.approx(-math.log1p(-of["tv"]) if of["tv"] < 0.999 else of["lk_alpha"], abs=1e-9)
    between = sorted((of["forward_kl"], of["tv"]))
    assert between[0] - slack <= of["lk_lambda"] <= between[1] + slack


@given(LOGITS, st.integers(1, 11))
def test_a_token_taken_from_the_draft_never_raises_alpha(pairs: list[tuple[float, float]], kept: int) -> None:
    draft, verifier = torch.tensor(pairs, dtype=torch.float64).T[:, None]
    pruned = Target(verifier[:, :kept], verifier.logsumexp(-1))
    alpha = distributions.overlap(draft[:, :kept], pruned)
    assert 0 <= alpha <= pruned.true.sum(-1) + 1e-12 <= 1 + 1e-9
