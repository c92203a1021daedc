"""Which rows every optimiser step takes, and which of them each process reads."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from typing import NamedTuple, Protocol

from spec_convert.errors import UsageError
from spec_convert.training.batches.batch import Batch


class Batches(Protocol):
    """Packed rows by number. Both answers depend on the seed of the data, the epoch and the row alone."""

    def rows(self, epoch: int) -> int:
        """How many rows the epoch has; the first epoch is 0."""

    def load(self, epoch: int, row: int) -> Batch:
        """A row, on the CPU. Called in a thread, one row at a time."""


class Place(NamedTuple):
    """Where a step is: both count from 0."""

    epoch: int
    step: int  # in this epoch


class Fed(NamedTuple):
    """A row of a step."""

    row: int
    batch: Batch
    counts: bool  # not so where the step has no row for this process, which computes along with the others


@dataclass(frozen=True, slots=True)
class Course:
    """All steps of a training. A step takes ``per_step`` rows, the last of an epoch those that are left."""

    rows: tuple[int, ...]  # of each epoch
    per_step: int  # rows in a step, of all processes
    total: int  # steps

    @property
    def ends(self) -> list[int]:
        """How many steps are done when each epoch is: the last one may end early."""
        return [min(end, self.total) for end in accumulate(-(-rows // self.per_step) for rows in self.rows)]

    def place(self, step: int) -> Place:
        ends = [0, *self.ends]
        epoch = bisect_right(ends, step) - 1
        return Place(epoch, step - ends[epoch])

    def epochs_done(self, steps: int) -> int:
        """How many epochs end within so many steps."""
        return bisect_right(self.ends, steps)

    def rows_of(self, place: Place, *, rank: int, world: int) -> list[tuple[int, bool]]:
        """The rows of a step that a process reads, and whether each counts. Every process reads equally many.

        Rank r takes the rows r, r + world, … of the step. One that would get fewer reads the last row once more,
        which does not count: so that all take part in as many exchanges of gradients.

        >>> course = Course(rows=(5,), per_step=4, total=2)
        >>> [course.rows_of(Place(0, 1), rank=rank, world=2) for rank in (0, 1)]
        [[(4, True)], [(4, False)]]
        """
        first = place.step * self.per_step
        end = min(first + self.per_step, self.rows[place.epoch])
        wanted = range(first + rank, first + rank + -(-(end - first) // world) * world, world)
        return [(min(row, end - 1), row < end) for row in wanted]


def plan_course(batches: Batches, *, per_step: int, epochs: int | None, max_steps: int | None) -> Course:
    """Raises UsageError when an epoch has no row."""
    rows: list[int] = []
    steps = 0
    while (epochs is None or len(rows) < epochs) and (max_steps is None or steps < max_steps):
        rows.append(batches.rows(len(rows)))
        if not rows[-1]:
            raise UsageError("the data hold no row to train on", hint="prepare and capture more of them")
        steps += -(-rows[-1] // per_step)
    return Course(tuple(rows), per_step, steps if max_steps is None else min(steps, max_steps))


def feed(batches: Batches, course: Course, *, start: int, rank: int, world: int) -> Generator[list[Fed], None, None]:
    """The rows of each step from ``start`` on. Those of the next step are read while one is computed."""

    def load(place: Place, row: int, counts: bool) -> Fed:
        return Fed(row, batches.load(place.epoch, row), counts)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="rows") as reader:
        try:
            ahead = None
            for step in range(start, course.total):
                place = course.place(step)
                wanted = course.rows_of(place, rank=rank, world=world)
                now, ahead = ahead, [reader.submit(load, place, row, counts) for row, counts in wanted]
                if now is not None:
                    yield [row.result() for row in now]
            if ahead is not None:
                yield [row.result() for row in ahead]
        finally:
            reader.shutdown(cancel_futures=True)


def seed_of(seed: int, step: int, row: int) -> int:
    """What is random in a row of a step, the same on any number of processes: 63 bits that follow from the three."""
    digest = blake2b(f"{seed}/{step}/{row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1
