"""Packing: every sample once an epoch, in an order that nothing but seed, epoch and lengths decides."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from spec_convert.training.batches.packing import packed_rows

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 50), st.integers(0, 3), st.integers(0, 3))
def test_every_sample_is_in_one_row_and_no_row_is_too_long(
    lengths: list[int], capacity: int, seed: int, epoch: int
) -> None:
    rows = packed_rows(torch.tensor(lengths), capacity, seed=seed, epoch=epoch)
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    assert all(sum(min(lengths[place], capacity) for place in row) <= capacity for row in rows)
    assert rows == packed_rows(torch.tensor(lengths), capacity, seed=seed, epoch=epoch)


def test_epochs_and_seeds_come_in_other_orders() -> None:
    lengths = torch.full((50,), 10)
    orders = [packed_rows(lengths, 30, seed=seed, epoch=epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(one != other for place, one in enumerate(orders) for other in orders[:place])


def test_rows_are_filled() -> None:
    lengths = torch.randint(50, 320, (500,), generator=torch.Generator().manual_seed(0))
    rows = packed_rows(lengths, 1024, seed=0, epoch=0)
    assert lengths.sum() / (1024 * len(rows)) > 0.96
