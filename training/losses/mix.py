"""`smooth_l1=1.0,soft_ce=0.1`: a weighted sum of losses, and the table of all there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from spec_convert.errors import UsageError
from spec_convert.training.losses import distributions, features
from spec_convert.training.losses.precision import at_least_float32

if TYPE_CHECKING:
    from torch import Tensor

    from spec_convert.training.losses.target import Target

    OnLogits = Callable[[Tensor, Target], Tensor]  # (draft_logits [r, Vd], target) -> [r]
    OnStates = Callable[[Tensor, Tensor], Tensor]  # (guessed [r, H], wanted [r, H]) -> [r]

ON_LOGITS: dict[str, OnLogits] = {
    "soft_ce": distributions.soft_ce,
    "forward_kl": distributions.forward_kl,
    "reverse_kl": distributions.reverse_kl,
    "jsd": distributions.jsd,
    "tv": distributions.tv,
    "lk_alpha": distributions.lk_alpha,
    "lk_lambda": distributions.lk_lambda,
    "hard_ce": distributions.hard_ce,
    "top_k": distributions.top_k,
    "mse_logits": distributions.mse_logits,
}
ON_STATES: dict[str, OnStates] = {"smooth_l1": features.smooth_l1, "mse_states": features.mse_states}
LOSSES = (*ON_LOGITS, *ON_STATES)
NEED_NORMALISER = frozenset({"tv", "lk_alpha", "lk_lambda"})


@dataclass(frozen=True)
class Mix:
    """Losses by name, each with what it counts beside the others. ``str`` gives what ``parse`` reads.

    Raises UsageError for a name that is not in the table or stands twice, and for a weight that is not above 0.
    """

    terms: tuple[tuple[str, float], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.terms]
        for name, weight in self.terms:
            if name not in LOSSES:
                raise UsageError(f"there is no loss `{name}`", hint=f"one of {', '.join(LOSSES)}")
            if names.count(name) > 1:
                raise UsageError(f"the loss `{name}` stands twice in the mix", hint="give it one weight")
            if not (isfinite(weight) and weight > 0):
                raise UsageError(
                    f"the loss `{name}` has the weight {weight:g}",
                    hint="a weight is a number above 0; what shall not count is left out",
                )

    @classmethod
    def parse(cls, text: str) -> Mix:
        """`soft_ce`, or `smooth_l1=1,soft_ce=0.1`; a name alone weighs 1. Raises UsageError for anything else."""
        return cls(tuple(_term(part.strip(), text) for part in text.split(",")))

    def __str__(self) -> str:
        return ",".join(f"{name}={weight!r}" for name, weight in self.terms)

    def __bool__(self) -> bool:
        """False of a part, ``on_logits`` or ``on_states``, that has no losses."""
        return bool(self.terms)

    @property
    def on_logits(self) -> Mix:
        return Mix(tuple(term for term in self.terms if term[0] in ON_LOGITS))

    @property
    def on_states(self) -> Mix:
        return Mix(tuple(term for term in self.terms if term[0] in ON_STATES))

    @property
    def needs_normaliser(self) -> bool:
        """Some loss reads ``Target.true``: the verifier's whole vocabulary has to be gone through."""
        return any(name in NEED_NORMALISER for name, _ in self.terms)

    def of_logits(self, draft_logits: Tensor, target: Target) -> Tensor:
        """[r, Vd] and the target of these rows -> [r]: the weighted sum of the losses on logits.

        Raises ValueError when there are none, or when ``target`` has no normaliser and one of them needs it.
        """
        assert draft_logits.shape == target.logits.shape, "the draft and the verifier at the same rows and tokens"
        logits = at_least_float32(draft_logits)
        return _sum([weight * ON_LOGITS[name](logits, target) for name, weight in self.on_logits.terms])

    def of_states(self, guessed: Tensor, wanted: Tensor) -> Tensor:
        """[r, H] twice -> [r]: the weighted sum of the losses on states. Raises ValueError when there are none."""
        assert guessed.shape == wanted.shape, "a wanted state for each guessed one"
        return _sum([weight * ON_STATES[name](guessed, wanted) for name, weight in self.on_states.terms])


def _term(part: str, text: str) -> tuple[str, float]:
    name, equals, weight = (piece.strip() for piece in part.partition("="))
    if not name:
        raise UsageError(f"`{text}` is not a mix of losses", hint="write it like soft_ce, or smooth_l1=1.0,soft_ce=0.1")
    try:
        return name, float(weight) if equals else 1.0
    except ValueError:
        raise UsageError(
            f"the loss `{name}` has the weight `{weight}`, which is not a number", hint=f"for example {name}=0.1"
        ) from None


def _sum(terms: list[Tensor]) -> Tensor:
    if not terms:
        raise ValueError("nothing to add up: this part of the mix has no losses")
    total, *others = terms
    for term in others:
        total = total + term
    return total
