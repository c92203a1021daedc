"""What a draft is worth on rows that it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from spec_convert.training.objectives.sums import Sums
from spec_convert.training.trainer.feeding import Batches, Course, feed, seed_of
from spec_convert.training.trainer.metrics import Metrics
from spec_convert.training.trainer.processes import Processes
from spec_convert.training.trainer.stopping import Stop
from spec_convert.training.trainer.wrapping import Wrapped


def evaluate(wrapped: Wrapped, batches: Batches, *, seed: int, processes: Processes, stop: Stop) -> Sums | None:
    """The sums over all rows of epoch 0, the same in all processes; None when a signal came before the end."""
    objective, world = wrapped.objective, processes.world
    rows = batches.rows(0)
    course = Course((rows,), per_step=world, total=-(-rows // world))
    sums = Sums.zero(len(objective.decay))
    with torch.no_grad(), at_rest(objective):
        for fed in feed(batches, course, start=0, rank=processes.rank, world=world):
            if stop.agreed(processes):
                return None
            for row, batch, counts in fed:
                found = wrapped.outcome(batch, objective.decay, measure=True, seed=seed_of(seed, 0, row)).sums
                if counts:
                    sums = sums + Sums(*found.stacked().cpu())
    return Sums(*processes.total(sums.stacked()))


@contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """In this block the module does not behave as in training."""
    module.eval()
    try:
        yield
    finally:
        module.train()


def score(metrics: Metrics) -> float | None:
    """The higher the better: tau, or where no chain was long enough for it, how low the loss is."""
    if metrics.tau is not None:
        return metrics.tau
    return None if metrics.loss is None else -metrics.loss
