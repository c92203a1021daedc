"""How far a training is, in numbers: with the weights and moments all that it takes to go on from there."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from spec_convert.training.objectives.sums import Sums


@dataclass(slots=True)
class Progress:
    """The same in all processes, so that they decide alike. The step gives the place in the data and in the schedule.

    Of the random numbers nothing needs to be kept: those of a row follow from the seed, the step and the row.
    """

    step: int = 0  # steps that are done, those that were skipped among them
    epochs: int = 0  # that are done, with all that belongs to their end
    tokens: int = 0
    seconds: float = 0.0  # of all runs together
    skipped: int = 0
    skipped_in_a_row: int = 0
    sums: list[list[float]] | None = None  # since the last line of the log
    lines: int = 0  # of the log
    metrics: dict[str, Any] | None = None  # the last ones of the training
    held_out: dict[str, Any] | None = None  # and of the evaluation
    best_epoch: int | None = None
    best_score: float | None = None
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))  # what trackers know this training by

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def passes(self, *, finite: bool) -> bool:
        """Count a step, of which the loss and the gradients are finite or not; whether it may change the weights."""
        self.step += 1
        self.skipped_in_a_row = 0 if finite else self.skipped_in_a_row + 1
        self.skipped += not finite
        return finite

    def add(self, sums: Sums) -> None:
        before = torch.tensor(self.sums, dtype=torch.float64) if self.sums is not None else 0
        self.sums = (sums.stacked() + before).tolist()

    def take_sums(self, steps: int) -> Sums:
        """Everything since the last time; ``steps``: K, where nothing was counted."""
        taken, self.sums = self.sums, None
        return Sums.zero(steps) if taken is None else Sums(*torch.tensor(taken, dtype=torch.float64))

    def is_best(self, score: float) -> bool:
        """Whether no epoch scored higher."""
        return self.best_score is None or score > self.best_score
