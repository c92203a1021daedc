"""How many chains are drawn at each depth, and from which."""

from __future__ import annotations

from itertools import pairwise

import torch

from spec_convert.training.batches.batch import Batch
from spec_convert.training.objectives.parallel_sampling import drawn_chains, planned_counts, shares

from ..drawing import document, drawn_batch

SHARES = shares(4, ratio=0.7, least=0.4)


def answered(*spans: tuple[int, int], length: int) -> Batch:
    """One document with these answers, the first token of each to the one after its last."""
    batch = drawn_batch([length])
    batch.loss_mask[:] = False
    for start, end in spans:
        batch.loss_mask[start:end] = True
    return batch


def test_the_shares_fall_to_the_least() -> None:
    assert SHARES == [1.0, 0.7, 0.7**2, 0.4]


def test_counts_of_one_answer() -> None:
    """101 tokens from the third on: 100 chains, rows 1 to 100; one less goes on at each depth."""
    taken = drawn_chains(answered((2, 103), length=110), SHARES, seed=0)
    counts = [100, int(99 * 0.7), int(98 * 0.49), int(97 * 0.4)]
    assert counts == [100, 69, 48, 38]
    assert taken.sum(dim=1).tolist() == counts
    assert taken[0].nonzero()[:, 0].tolist() == list(range(1, 101))


def test_a_share_that_gives_a_whole_number_gives_all_of_it() -> None:
    """0.7 squared is a little less than 0.49 in binary."""
    assert planned_counts(answered((2, 105), length=110), [1.0, 1.0, 0.7**2])[2] == 49


def test_whoever_goes_deep_was_taken_all_the_way_and_stays_in_its_answer() -> None:
    batch = answered((2, 20), (30, 33), (40, 90), length=100)
    taken = drawn_chains(batch, SHARES, seed=3)
    assert (taken[1:] <= taken[:-1]).all()
    for depth, row in taken.nonzero().tolist():
        assert batch.loss_mask[row + 1 : row + depth + 3].all()


def test_the_plan_counts_the_chains_that_could_go_on() -> None:
    """Answers of 3 and 6 tokens: chains of 2 + 5, 1 + 4, 0 + 3 and 0 + 2 windows."""
    batch = answered((2, 5), (8, 14), length=20)
    assert planned_counts(batch, [1.0] * 4).tolist() == [7, 5, 3, 2]
    assert planned_counts(batch, SHARES).tolist() == [7, int(5 * 0.7), int(3 * 0.49), 0]


def test_everything_is_drawn_when_all_shares_are_whole() -> None:
    batch = drawn_batch([30, 4, 50])
    taken = drawn_chains(batch, [1.0] * 3, seed=0)
    assert torch.equal(taken.sum(dim=1), planned_counts(batch, [1.0] * 3))


def test_what_is_drawn_of_a_document_does_not_depend_on_its_neighbours() -> None:
    batch = drawn_batch([40, 25, 60], answers=0.95)
    taken = drawn_chains(batch, SHARES, seed=5)
    for number, (start, end) in enumerate(pairwise(batch.bounds)):
        assert torch.equal(taken[:, start:end], drawn_chains(document(batch, number), SHARES, seed=5))


def test_every_chain_is_drawn_as_often_as_any_other_one() -> None:
    batch = answered((2, 23), length=30)
    runs = 400
    often = sum(drawn_chains(batch, SHARES, seed=seed)[1].float() for seed in range(runs))[1:20]
    assert ((often / runs - 13 / 19).abs() < 0.12).all()  # five standard deviations


def test_the_seed_decides_and_the_state_of_torch_does_not() -> None:
    batch = drawn_batch([60], answers=0.95)
    torch.manual_seed(1)
    one = drawn_chains(batch, SHARES, seed=1)
    torch.manual_seed(2)
    assert torch.equal(one, drawn_chains(batch, SHARES, seed=1))
    assert not torch.equal(one, drawn_chains(batch, SHARES, seed=2))
    assert torch.initial_seed() == 2
