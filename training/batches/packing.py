"""Which samples share a packed row, in an order that depends on the seed, the epoch and the lengths alone."""

from __future__ import annotations

import torch
from torch import Tensor

OPEN = 64  # rows that still take samples: more fill rows better, and cost more looks


def packed_rows(lengths: Tensor, capacity: int, *, seed: int, epoch: int) -> list[tuple[int, ...]]:
    """The places of the samples in each row of at most ``capacity`` tokens; every sample once, longer ones cut.

    ``lengths`` [samples] int64. Samples come in random order, each into the first open row with room for it.

    >>> packed_rows(torch.tensor([3, 2, 2, 9]), 5, seed=0, epoch=0)
    [(2, 0), (1,), (3,)]
    """
    random = torch.Generator().manual_seed(_mixed(seed, epoch))
    order = torch.randperm(len(lengths), generator=random).tolist()
    taken = lengths.clamp(max=capacity).tolist()
    rows: list[list[int]] = []
    room: dict[int, int] = {}  # of the open rows, the oldest first
    for place in order:
        row = next((row for row, left in room.items() if left >= taken[place]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room[row] = capacity
            if len(room) > OPEN:
                del room[min(room, key=room.__getitem__)]
        rows[row].append(place)
        room[row] -= taken[place]
    return [tuple(row) for row in rows]


def _mixed(seed: int, epoch: int) -> int:
    """One number of the two, such that neighbours of either have nothing in common."""
    return (seed * 1_000_003 + epoch * 7_919 + 1) % (2**63)
