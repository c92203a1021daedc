"""What is counted: drafts, tokens by position, alpha over the drafts that reached it, and the time of decoding only."""

from __future__ import annotations

import pytest
import torch

from spec_convert.evaluation import counting
from spec_convert.evaluation.acceptance import Proposal
from spec_convert.evaluation.counting import Stopwatch, Tally
from spec_convert.evaluation.speculation import Step

EQUAL = torch.zeros(3, 4)  # a quarter for each token


def step(accepted: int, *, draft: torch.Tensor = EQUAL) -> Step:
    logits = torch.zeros(4, 4)
    return Step(token_ids=[1], accepted=accepted, proposal=Proposal([1, 1, 1], draft), logits=logits)


def test_a_draft_counts_at_every_position_that_was_accepted() -> None:
    tally = Tally(3, temperature=0)
    for accepted in (0, 3, 1, 1):
        tally.see(step(accepted))
    assert (tally.drafts, tally.accepted) == (4, [3, 1, 1])


def test_passes_without_a_draft_do_not_count() -> None:
    tally = Tally(3, temperature=0)
    tally.see(Step(token_ids=[1]))
    tally.see(Step(token_ids=[1], proposal=Proposal([], torch.empty(0, 0)), logits=torch.zeros(1, 4)))
    assert tally.drafts == 0
    assert tally.alpha == (None, None, None)


def test_alpha_is_the_mean_over_the_drafts_that_reached_the_position() -> None:
    half = torch.zeros(3, 4)
    half[:, 2:] = float("-inf")  # one half for each of two tokens: the overlap with a quarter each is one half
    tally = Tally(3, temperature=0)
    tally.see(step(1))  # reaches two positions, with overlap 1
    tally.see(step(0, draft=half))  # reaches one, with overlap one half
    assert tally.alpha == (pytest.approx(0.75), pytest.approx(1.0), None)


def test_alpha_of_greedy_decoding_is_taken_at_temperature_one_else_at_the_temperature_of_sampling() -> None:
    draft = torch.tensor([[0.0, 1.0, 2.0, 3.0]] * 3)
    alphas = {}
    for temperature in (0.0, 1.0, 2.0):
        tally = Tally(3, temperature=temperature)
        tally.see(step(0, draft=draft))
        alphas[temperature] = tally.alpha[0]
    q = (draft[0] / 2).softmax(-1)
    assert alphas[0.0] == alphas[1.0]
    assert alphas[2.0] == pytest.approx(float(q.clamp(max=0.25).sum()))
    assert alphas[2.0] != pytest.approx(alphas[1.0])


def test_the_watch_stands_still_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(counting, "perf_counter", lambda: now[0])

    def decoding():
        for tokens in ([1], [2, 3]):
            now[0] += 1.0
            yield Step(token_ids=tokens)
        now[0] += 0.5

    watch = Stopwatch()
    for _ in watch.timed(decoding()):
        now[0] += 100.0
    assert watch.speed.tokens == 3
    assert watch.speed.seconds == 2.5
