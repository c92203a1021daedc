"""From sums to what a draft is worth at each step of a chain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isfinite

from torch import Tensor

from spec_convert.training.objectives.sums import Sums

Ratio = float | None  # None: nothing was counted, or what was is not a number


@dataclass(frozen=True, slots=True)
class Metrics:
    """Each list has one number for each of the K steps of a chain. `Sums` says what is counted."""

    loss: Ratio  # what is minimised: the mean losses of all steps, each times its decay
    losses: list[Ratio]
    accuracy: list[Ratio]  # the draft's likeliest token is the verifier's
    joint: list[Ratio]  # guesses 0 to k are all right
    conditional: list[Ratio]  # guess k is right when all before it are
    alpha: list[Ratio]  # the mean probability that sampling at temperature 1 accepts
    tau: Ratio  # mean accepted length of greedy chains, the verifier's own token included: 1 + the sum of `joint`

    def to_json(self) -> dict[str, Ratio | list[Ratio]]:
        return asdict(self)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """Single numbers by name, for trackers: `loss`, `joint_0`, `joint_1`, …; those that there are."""
        for name, value in self.to_json().items():
            named = [(name, value)] if not isinstance(value, list) else _numbered(name, value)
            yield from ((each, number) for each, number in named if number is not None)


def metrics_of(sums: Sums, decay: Tensor) -> Metrics:
    """``decay`` [K]: what the loss of each step counts. A perfect draft has a tau of exactly K + 1."""
    losses, joint = _ratios(sums.loss, sums.weight), _ratios(sums.joint, sums.windows)
    known = [factor * loss for factor, loss in zip(decay.tolist(), losses, strict=True) if loss is not None]
    before = [1.0, *joint[:-1]]
    return Metrics(
        loss=sum(known) if known else None,
        losses=losses,
        accuracy=_ratios(sums.hits, sums.rows),
        joint=joint,
        conditional=[_ratio(now, last) for now, last in zip(joint, before, strict=True)],
        alpha=_ratios(sums.alpha, sums.windows),
        tau=1 + sum(share for share in joint if share is not None) if None not in joint else None,
    )


def _ratios(numerators: Tensor, denominators: Tensor) -> list[Ratio]:
    return [_ratio(over, under) for over, under in zip(numerators.tolist(), denominators.tolist(), strict=True)]


def _ratio(over: Ratio, under: Ratio) -> Ratio:
    return over / under if over is not None and isfinite(over) and under else None


def _numbered(name: str, values: Sequence[Ratio]) -> list[tuple[str, Ratio]]:
    return [(f"{name}_{step}", value) for step, value in enumerate(values)]
