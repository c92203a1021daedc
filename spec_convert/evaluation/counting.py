"""Counts what happened to the drafts, and the seconds that decoding took."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

import torch

from spec_convert.evaluation.acceptance import overlap
from spec_convert.evaluation.measured import Speed
from spec_convert.evaluation.speculation import Step


class Tally:
    """Drafts, accepted tokens by position, and alpha by position: the mean of sum min(p, q) over the drafts that
    reached it, with p and q at the temperature of sampling, or at 1 when decoding is greedy."""

    def __init__(self, tokens: int, *, temperature: float) -> None:
        """``tokens``: K, how many each draft holds."""
        self.drafts = 0
        self.accepted = [0] * tokens
        self._temperature = temperature or 1.0
        self._overlaps = torch.zeros(tokens, dtype=torch.float64)

    def see(self, step: Step) -> None:
        if step.proposal is None or step.logits is None or not step.proposal.token_ids:
            return
        self.drafts += 1
        for position in range(step.accepted):
            self.accepted[position] += 1
        reached = min(step.accepted + 1, len(self.accepted))
        alpha = overlap(step.logits[:reached], step.proposal.logits[:reached], self._temperature)
        self._overlaps[:reached] += alpha.double().cpu()

    @property
    def alpha(self) -> tuple[float | None, ...]:
        """[K]; None for a position that no draft reached."""
        reached = [self.drafts, *self.accepted[:-1]]
        return tuple(
            total / count if count else None for total, count in zip(self._overlaps.tolist(), reached, strict=True)
        )


class Stopwatch:
    """Adds up the time that steps take to be made, not what is done with them in between.

    Each step ends with token ids read from the device: nothing is still running there when the watch stops.
    """

    def __init__(self) -> None:
        self.tokens, self.seconds = 0, 0.0

    def timed(self, steps: Iterator[Step]) -> Iterator[Step]:
        while True:
            started = perf_counter()
            step = next(steps, None)
            self.seconds += perf_counter() - started
            if step is None:
                return
            self.tokens += len(step.token_ids)
            yield step

    @property
    def speed(self) -> Speed:
        return Speed(tokens=self.tokens, seconds=self.seconds)
