"""The acceptance that the demo reports: what it must be for drafters whose acceptance is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spec_convert.demo.answers import Answer
from spec_convert.demo.drafting import acceptance, accepted
from spec_convert.models.contract import Draft, DraftOutput
from spec_convert.models.eagle import EagleDraft

VOCABULARY = 24
Make = Callable[..., Answer]


class Guesser(Draft):
    """Says the token that comes ``ahead`` after the one it is given; from step ``gives_up_at`` on, that token."""

    def __init__(self, ahead: int, gives_up_at: int | None = None) -> None:
        super().__init__()
        self.ahead, self.gives_up_at, self.step = ahead, gives_up_at, 0

    def forward(
        self,
        input_ids: Tensor,
        hidden_states: Tensor,
        position_ids: Tensor | None = None,
        *,
        fed_back=None,
        attend=None,
    ) -> DraftOutput:
        self.step = self.step + 1 if fed_back else 0
        ahead = 0 if self.step == self.gives_up_at else self.ahead
        return DraftOutput(F.one_hot((input_ids + ahead) % VOCABULARY, VOCABULARY).float(), hidden_states)


@pytest.fixture
def counting(answer_of: Make) -> Answer:
    """An answer in which every token is one more than the token before it."""
    return answer_of(20, start=4, ids=torch.arange(20))


@pytest.mark.parametrize("tokens", [1, 3, 5])
def test_a_drafter_that_is_always_right_yields_all_its_tokens_and_the_verifiers_own(
    counting: Answer, tokens: int
) -> None:
    assert acceptance(Guesser(1), [counting], tokens=tokens).mean_length == tokens + 1


def test_a_drafter_that_is_never_right_yields_the_verifiers_token_alone(counting: Answer) -> None:
    measured = acceptance(Guesser(2), [counting], tokens=3)
    assert measured.by_position == (0, 0, 0)
    assert measured.mean_length == 1


def test_a_right_token_after_a_wrong_one_does_not_count(counting: Answer) -> None:
    assert acceptance(Guesser(1, gives_up_at=1), [counting], tokens=3).by_position == (1, 0, 0)


def test_a_chain_starts_after_what_the_chain_before_it_gained(counting: Answer) -> None:
    # rows 3 to 15 can start a chain of 3: all of them when nothing is accepted, every fourth when everything is
    assert acceptance(Guesser(2), [counting], tokens=3).chains == 13
    assert acceptance(Guesser(1), [counting], tokens=3).chains == 4


def test_all_chains_at_once_are_the_same_as_one_after_the_other(draft: EagleDraft, answer_of: Make) -> None:
    answer = answer_of(40, start=3)
    guesses = draft(answer.token_ids[None, 1:], answer.states[None]).logits[0].argmax(-1)
    ids = answer.token_ids.clone()
    ids[4::3] = guesses[2:-1:3]  # so that some chains go on: random tokens are never guessed
    answer = Answer(token_ids=ids, states=answer.states, start=answer.start)
    counts = [one_chain(draft, answer, row, 3) for row in range(36)]
    assert len(set(counts)) > 1
    assert accepted(draft, answer, 3).tolist() == counts


def one_chain(draft: EagleDraft, answer: Answer, row: int, tokens: int) -> int:
    """As a server does it: the draft's own token and state appended, all rows run again with plain causal attention."""
    ids, states = answer.token_ids[None, 1 : row + 2], answer.states[None, : row + 1]
    for step in range(tokens):
        logits, made = draft(ids, states)
        token = logits[:, -1].argmax(-1)
        if token != answer.token_ids[row + 2 + step]:
            return step
        ids, states = torch.cat((ids, token[None]), dim=1), torch.cat((states, made[:, -1:]), dim=1)
    return tokens
