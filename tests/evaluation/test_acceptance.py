"""The acceptance rules: greedy keeps what the verifier would have said, sampling keeps the verifier's distribution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.evaluation.acceptance import (
    Greedy,
    Proposal,
    Sampled,
    accept_greedy,
    accept_sampled,
    chance,
    overlap,
    probabilities,
    require_numbers,
    residual,
)

VOCABULARY = 6


def logits_of(seed: int, rows: int = 1) -> Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 2


def one_hot(*token_ids: int) -> Tensor:
    return torch.eye(VOCABULARY)[list(token_ids)]


@pytest.mark.parametrize(
    ("drafted", "accepted", "next_token"),
    [([1, 2, 3], 3, 4), ([1, 2, 0], 2, 3), ([1, 0, 3], 1, 2), ([0, 2, 3], 0, 1), ([5, 5, 5], 0, 1)],
)
def test_greedy_keeps_the_longest_prefix_that_the_verifier_says_and_adds_its_next_token(
    drafted: list[int], accepted: int, next_token: int
) -> None:
    assert accept_greedy(Proposal(drafted, one_hot(*drafted)), one_hot(1, 2, 3, 4)) == (accepted, next_token)


def test_without_a_proposal_the_verifier_says_its_own_token() -> None:
    nothing = Proposal([], torch.empty(0, 0))
    assert accept_greedy(nothing, one_hot(4)) == (0, 4)
    assert Greedy().verify(nothing, one_hot(4)) == (0, 4)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_the_law_of_the_emitted_token_is_the_verifiers(seed: int, temperature: float) -> None:
    p, q = (probabilities(logits_of(seed + shift)[0], temperature) for shift in (0, 100))
    stands = torch.tensor([float(q[token]) * chance(p, q, token) for token in range(VOCABULARY)])
    law = stands + (1 - stands.sum()) * residual(p, q)
    torch.testing.assert_close(law, p)


def test_the_law_holds_for_a_draft_that_cannot_say_every_token() -> None:
    outside = logits_of(0)[0].masked_fill(torch.tensor([True, False] * 3), float("-inf"))
    p, q = probabilities(logits_of(1)[0], 1.0), probabilities(outside, 1.0)
    assert q[0] == 0
    sayable = [token for token in range(VOCABULARY) if q[token] > 0]
    stands = torch.zeros(VOCABULARY)
    for token in sayable:
        stands[token] = float(q[token]) * chance(p, q, token)
    torch.testing.assert_close(stands + (1 - stands.sum()) * residual(p, q), p)


def test_the_law_is_what_sampling_does() -> None:
    """Chi-square with 5 degrees of freedom: above 20.5 in one of a thousand random seeds; this seed is fixed."""
    generator = torch.Generator().manual_seed(0)
    strategy = Sampled(0.8, generator)
    verifier, draft = logits_of(1, rows=2), logits_of(2)
    counts, runs = torch.zeros(VOCABULARY), 6000
    for _ in range(runs):
        drafted = strategy.choose(draft[0])
        accepted, token = strategy.verify(Proposal([drafted], draft), verifier)
        counts[drafted if accepted else token] += 1
    expected = probabilities(verifier[0], 0.8) * runs
    assert float(((counts - expected) ** 2 / expected).sum()) < 20.5


def test_equal_distributions_always_accept() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = logits_of(3, rows=4)
    assert all(accept_sampled(Proposal([1, 2, 3], logits[:3]), logits, 1.0, generator).accepted == 3 for _ in range(50))


def test_a_token_that_the_verifier_never_says_is_never_accepted() -> None:
    generator = torch.Generator().manual_seed(0)
    verifier = logits_of(3, rows=2)
    verifier[0, 2] = float("-inf")
    for _ in range(50):
        accepted, token = accept_sampled(Proposal([2], logits_of(4)), verifier, 1.0, generator)
        assert accepted == 0
        assert token != 2


def test_sampling_is_the_same_again_with_the_same_seed() -> None:
    def choices() -> list[int]:
        strategy = Sampled(1.0, torch.Generator().manual_seed(7))
        return [strategy.choose(logits_of(0)[0]) for _ in range(20)]

    assert choices() == choices()


def test_rounding_that_leaves_no_residual_falls_back_on_the_verifier() -> None:
    p = torch.tensor([0.5, 0.5])
    assert torch.equal(residual(p, p), p)


def test_overlap_is_the_chance_that_a_drawn_token_stands() -> None:
    verifier, draft = logits_of(1), logits_of(2)
    p, q = probabilities(verifier[0], 1.3), probabilities(draft[0], 1.3)
    by_hand = sum(float(q[token]) * chance(p, q, token) for token in range(VOCABULARY))
    assert float(overlap(verifier, draft, 1.3)) == pytest.approx(by_hand)


def test_overlap_counts_nothing_for_tokens_that_the_draft_cannot_say() -> None:
    verifier = torch.zeros(1, VOCABULARY)  # a sixth for each token
    draft = torch.full((1, VOCABULARY), float("-inf"))
    draft[0, :2] = 0.0  # one half for each of two tokens
    assert float(overlap(verifier, draft, 1.0)) == pytest.approx(2 / 6)


def test_half_precision_logits_become_float32_probabilities() -> None:
    assert probabilities(logits_of(0).bfloat16(), 1.0).dtype is torch.float32


def test_numbers_that_are_none_are_refused_instead_of_agreeing() -> None:
    """The argmax of NaN is token 0 on both sides: it would look like a draft that is always right."""
    nothing = torch.full((4, 8), float("nan"))
    assert accept_greedy(Proposal([0, 0, 0], nothing[:3]), nothing).accepted == 3
    with pytest.raises(UsageError, match="the verifier computes no numbers in float32"):
        require_numbers(nothing, "verifier")
