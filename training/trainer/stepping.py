"""One optimiser step: the rows of all processes, the loss that is one mean over them, and its gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spec_convert.training.objectives.sums import Sums
from spec_convert.training.trainer.feeding import Fed, seed_of
from spec_convert.training.trainer.optimisers import Optimiser
from spec_convert.training.trainer.processes import Processes
from spec_convert.training.trainer.wrapping import Wrapped


@dataclass(frozen=True, slots=True)
class Gradients:
    """What a step found, the same in all processes. The gradients themselves are with the parameters, clipped."""

    sums: Sums
    tokens: int
    norm: float  # before clipping

    @property
    def finite(self) -> bool:
        return math.isfinite(self.norm) and bool(self.sums.loss.isfinite().all())


def compute_gradients(  # noqa: PLR0913  what a step depends on
    wrapped: Wrapped, optimiser: Optimiser, rows: Sequence[Fed], *, step: int, seed: int, measure: bool,
    processes: Processes,
) -> Gradients:  # fmt: skip
    """Read the rows one after the other; the gradients are those of one mean over the rows of all processes."""
    share, tokens = _share(wrapped, rows, processes)
    sums = Sums.zero(len(share))
    for fed in rows:
        with wrapped.gradients(last=fed is rows[-1]):
            outcome = wrapped.outcome(
                fed.batch, share * fed.counts, measure=measure and fed.counts, seed=seed_of(seed, step, fed.row)
            )
            outcome.loss.backward()  # type: ignore[no-untyped-call]
        if fed.counts:
            sums = sums + Sums(*outcome.sums.stacked().cpu())
    return Gradients(Sums(*processes.total(sums.stacked())), tokens, optimiser.clipped_norm())


def _share(wrapped: Wrapped, rows: Sequence[Fed], processes: Processes) -> tuple[Tensor, int]:
    """[K], by what summed losses are multiplied, and how many tokens all processes read."""
    decay = wrapped.objective.decay
    own = torch.zeros(len(decay) + 1, dtype=torch.float64)
    for fed in rows:
        if fed.counts:
            own[:-1] += wrapped.objective.weights(fed.batch)
            own[-1] += len(fed.batch)
    total = processes.total(own)
    weight, tokens = total[:-1], int(total[-1])
    # Gradients are averaged over the processes: hence their number.
    return torch.where(weight > 0, decay * processes.world / weight, 0.0), tokens
