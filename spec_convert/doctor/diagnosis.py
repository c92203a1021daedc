"""The search for what is wrong: every hypothesis by itself, then beside what was found, until nothing more helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch

from spec_convert.doctor.heard import Heard
from spec_convert.doctor.hypothesis import Base, Fix, Hypothesis
from spec_convert.doctor.of_config import of_config
from spec_convert.doctor.of_states import of_states
from spec_convert.doctor.of_weights import of_weights
from spec_convert.doctor.parts import Parts
from spec_convert.doctor.scoring import Gain, Score, has_learned, score
from spec_convert.narration import progress, say

DTYPE = "dtype"
Verdict = Literal["sound", "cause", "lost"]
WIDER = {torch.float16: ("bfloat16", "float32"), torch.bfloat16: ("float32",)}
MOST_CAUSES = 2  # with more changes at once, a draft of another verifier can be made to fit this one a little
TELLS_APART = 2.0  # standard errors, of two hypotheses that both help


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A hypothesis measured: beside which others (their codes), and what it gained over the draft with only those."""

    hypothesis: Hypothesis
    beside: tuple[str, ...]
    score: Score
    gain: Gain


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """``at_first``: the draft as it is. ``at_last``: with all ``causes`` mended. ``blind``: the same, given the states
    of other tokens, which tell it nothing. ``tried``: everything that was measured, in order.
    """

    at_first: Score
    blind: Score
    at_last: Score
    causes: tuple[Tried, ...]
    tried: tuple[Tried, ...]

    @property
    def verdict(self) -> Verdict:
        """ "lost": nothing helps, and the draft guesses no better than without the verifier's states."""
        if self.causes:
            return "cause"
        return "sound" if has_learned(self.at_last, self.blind) else "lost"

    @property
    def gain(self) -> Gain:
        return Gain.of(self.at_last, self.at_first)

    def as_good(self, cause: Tried) -> tuple[Tried, ...]:
        """What these rows do not tell from a cause: measured beside the same, and not surely worse."""
        return tuple(one for one in self.tried if one.beside == cause.beside and _as_good(one, cause))


def _as_good(one: Tried, cause: Tried) -> bool:
    lead = Gain.of(cause.score, one.score)
    return one is not cause and one.gain.sure and lead.tokens <= TELLS_APART * lead.error


def diagnose(parts: Parts, base: Base, heard: Heard) -> Diagnosis:
    """``parts`` compute in the type of their file. Whether that is to blame is asked first; the rest in float32."""
    search = _Search(parts, heard)
    at_first = search.reached
    search.step(_of_dtype(parts.dtype))
    search.go_on_in_float32()
    hypotheses = [*of_states(parts, base), *of_config(parts, base), *of_weights(parts, base)]
    say(f"Trying {len(hypotheses)} hypotheses on {heard.rows} rows")
    if not search.to_the_end(hypotheses):
        search.pair(hypotheses)
    return Diagnosis(
        at_first=at_first, blind=search.blind(), at_last=search.reached, causes=tuple(search.causes),
        tried=tuple(search.tried),
    )  # fmt: skip


class _Search:
    """``parts`` with all ``causes`` mended, and the score that they reach."""

    def __init__(self, parts: Parts, heard: Heard) -> None:
        self.parts, self._heard = parts, heard
        self.reached = score(parts, heard)
        self.causes: list[Tried] = []
        self.tried: list[Tried] = []

    def blind(self) -> Score:
        """As the draft guesses when its states are those of other tokens."""
        return score(replace(self.parts, elsewhere=True), self._heard)

    def step(self, hypotheses: Sequence[Hypothesis]) -> bool:
        """Take the hypothesis that helps most; False when none surely helps."""
        helpful = [one for one in self._measure(hypotheses) if one.gain.sure]
        if not helpful:
            return False
        self._take(max(helpful, key=lambda one: one.gain.tokens))
        return True

    def to_the_end(self, hypotheses: Sequence[Hypothesis]) -> bool:
        """Step until nothing more helps. False for a draft that even then makes nothing of the verifier's states.

        What helps such a draft is no cause: flatter guesses, for one, overlap more with whatever the verifier says.
        """
        before, blind = (self.parts, self.reached, list(self.causes)), self.blind()
        while self._open and self.step(hypotheses):
            pass
        if all(has_learned(self.reached, guess) for guess in (blind, self.blind())):
            return True
        self.parts, self.reached, self.causes = before
        return False

    def pair(self, hypotheses: Sequence[Hypothesis]) -> None:
        """Where none helps by itself: the one that brings the draft nearest to the verifier, and another beside it."""
        before, found = (self.parts, self.reached, list(self.causes)), len(self.causes)
        alone = [one for one in self.tried if one.beside == self._codes and one.hypothesis.aspect != DTYPE]
        self._take(max(alone, key=lambda one: one.gain.tokens))
        if not self.to_the_end(hypotheses) or len(self.causes) == found + 1:
            self.parts, self.reached, self.causes = before

    @property
    def _codes(self) -> tuple[str, ...]:
        return tuple(cause.hypothesis.code for cause in self.causes)

    @property
    def _open(self) -> bool:
        return sum(cause.hypothesis.aspect != DTYPE for cause in self.causes) < MOST_CAUSES

    def go_on_in_float32(self) -> None:
        if self.parts.dtype != torch.float32:
            self.parts = replace(self.parts, dtype=torch.float32)
            self.reached = score(self.parts, self._heard)

    def _measure(self, hypotheses: Sequence[Hypothesis]) -> list[Tried]:
        """Beside the same causes nothing is measured twice."""
        taken = {cause.hypothesis.aspect for cause in self.causes}
        known = {one.hypothesis.code: one for one in self.tried if one.beside == self._codes}
        wanted = [one for one in hypotheses if one.aspect not in taken]
        open_ones = [one for one in wanted if one.code not in known]
        measured = []
        with progress(len(open_ones), unit="hypothesis") as done:
            for hypothesis in open_ones:
                after = score(hypothesis.edit(self.parts), self._heard)
                gain = Gain.of(after, self.reached)
                measured.append(Tried(hypothesis=hypothesis, beside=self._codes, score=after, gain=gain))
                done(1)
        self.tried += measured
        return [*measured, *(known[one.code] for one in wanted if one.code in known)]

    def _take(self, tried: Tried) -> None:
        self.parts, self.reached = tried.hypothesis.edit(self.parts), tried.score
        self.causes.append(tried)


def _of_dtype(dtype: torch.dtype) -> list[Hypothesis]:
    stored = str(dtype).removeprefix("torch.")
    return [
        Hypothesis(
            code=f"computes-in-{wider}", aspect=DTYPE,
            says=f"it cannot be computed in {stored}, the type of its file, and can in {wider}",
            edit=partial(replace, dtype=getattr(torch, wider)),
            fix=Fix(flags=("--dtype", wider), words=f"serve it in {wider}: servers compute it in the verifier's type"),
        )
        for wider in WIDER.get(dtype, ())
    ]  # fmt: skip
