"""Learning rates over a training, as shares of the highest one."""

from __future__ import annotations

import math
from collections.abc import Callable

from spec_convert.training.trainer.plan import ScheduleName

WSD_DECAY = 0.1  # the share of the training in which `wsd` falls (arXiv 2404.06395)


def _wsd(done: float) -> float:
    return min(1.0, (1 - done) / WSD_DECAY)


# After the warm-up, by how much of the rest is done: from 0 at its first step to nearly 1 at its last.
SCHEDULES: dict[ScheduleName, Callable[[float], float]] = {
    "linear": lambda done: 1 - done,
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "constant": lambda _: 1.0,
    "wsd": _wsd,
}


def rate_at(step: int, *, total: int, schedule: ScheduleName, warmup: float) -> float:
    """The share of the highest learning rate that step ``step`` of ``total`` takes, the first being 0.

    No step is taken with a rate of 0: the warm-up begins with its first share, the rest ends before it reaches 0.

    >>> [rate_at(step, total=6, schedule="linear", warmup=0.3) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return SCHEDULES[schedule]((step - rising) / (total - rising))
