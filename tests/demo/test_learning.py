"""How the demo's draft learns: from which rows, and that it does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from spec_convert.demo import learning
from spec_convert.demo.answers import Answer
from spec_convert.models.eagle import EagleDraft

Make = Callable[..., Answer]


def test_a_row_holds_the_next_token_and_the_state_to_guess(answer_of: Make) -> None:
    answer = answer_of(6, start=3)
    tokens, states, wanted, _ = learning.batch_of([answer])
    assert tokens[0].tolist() == answer.token_ids[1:5].tolist()
    assert torch.equal(states[0], answer.states[:4])
    assert torch.equal(wanted[0], answer.states[1:])


def test_only_rows_whose_token_is_of_the_answer_count(answer_of: Make) -> None:
    *_, counts = learning.batch_of([answer_of(7, start=3), answer_of(5, start=2)])
    assert counts.tolist() == [[False, False, True, True, True], [False, True, True, False, False]]


def test_padding_changes_no_row_that_counts(draft: EagleDraft, answer_of: Make) -> None:
    short, long = answer_of(6, start=2), answer_of(11, start=2)
    alone, together = learning.batch_of([short]), learning.batch_of([short, long])
    expected = draft.states(alone[0], alone[1]).hidden_states[alone[3]]
    torch.testing.assert_close(draft.states(together[0], together[1]).hidden_states[0][together[3][0]], expected)


def test_learning_lowers_the_loss(draft: EagleDraft, answer_of: Make) -> None:
    answers = [answer_of(length, start=2) for length in (8, 9, 10, 11)]
    before = learning.loss_of(draft, learning.batch_of(answers)).item()
    learning.learn(draft, answers, seconds=0.5)
    assert learning.loss_of(draft, learning.batch_of(answers)).item() < before


def test_learning_leaves_what_belongs_to_the_verifier(draft: EagleDraft, answer_of: Make) -> None:
    embedding, head = draft.embed_tokens.weight.clone(), draft.lm_head.weight.clone()
    learning.learn(draft, [answer_of(8, start=2)], seconds=0.05)
    assert torch.equal(draft.embed_tokens.weight, embedding)
    assert torch.equal(draft.lm_head.weight, head)


def test_the_compared_rows_are_a_sample_of_the_same_mean(
    draft: EagleDraft, answer_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "NOISE", 0.0)
    batch = learning.batch_of([answer_of(30, start=2)])
    whole = learning.loss_of(draft, batch).item()
    monkeypatch.setattr(learning, "HEAD_ROWS", 9)
    torch.manual_seed(0)
    sampled = sum(learning.loss_of(draft, batch).item() for _ in range(300)) / 300
    assert sampled == pytest.approx(whole, rel=0.02)
