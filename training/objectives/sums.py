"""Numerators and denominators by step. Ratios are formed after summing over batches and ranks, never before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Each is [K] float64, one number for each of the K steps of a chain.

    Row i is a chain that starts beside token i; its step k guesses token i + k + 2. What was not measured counts no
    ``rows`` and no ``windows``.
    """

    loss: Tensor  # the weighted losses of all rows
    weight: Tensor  # their weights
    rows: Tensor  # rows whose guesses were compared: those of weight 1
    hits: Tensor  # of them, the draft's likeliest token is the verifier's likeliest, of its whole vocabulary
    windows: Tensor  # chains that lie in an answer from their first token to the guessed one
    joint: Tensor  # of them, guesses 0 to k are all right
    alpha: Tensor  # over the same windows, the sum of the probability that sampling at temperature 1 accepts

    @classmethod
    def of(cls, known: Mapping[str, Tensor], *, steps: int) -> Sums:
        """What is ``known`` by name, and zeros."""
        return cls(**{field.name: torch.zeros(steps, dtype=torch.float64) for field in fields(cls)} | dict(known))

    @classmethod
    def zero(cls, steps: int) -> Sums:
        return cls.of({}, steps=steps)

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(self.stacked() + other.stacked()))

    def stacked(self) -> Tensor:
        """[7, K], to be summed over ranks; ``Sums(*stacked)`` is the way back."""
        return torch.stack([getattr(self, field.name) for field in fields(self)])
