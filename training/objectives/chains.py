"""The objective of all drafts that are fed their own states: EAGLE-1, HASS and EAGLE-3 differ in what they are given.

step k of the chain at row i guesses, from the tokens up to i + 1 + k,
    the verifier's state of token i + 1 + k           (losses on states: EAGLE-1, HASS)
    what the verifier says after token i + 1 + k      (losses on logits)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.models.contract import Draft
from spec_convert.training.batches.batch import Batch
from spec_convert.training.losses.mix import Mix
from spec_convert.training.objectives.accounting import sums_of, zero_loss
from spec_convert.training.objectives.layout import Layout
from spec_convert.training.objectives.objective import Objective, Outcome
from spec_convert.training.objectives.sums import Sums
from spec_convert.training.objectives.teacher import Teacher
from spec_convert.training.objectives.tiles import Guesses, judge
from spec_convert.training.unrolling.unroll import Step, unroll
from spec_convert.training.unrolling.windows import counted_rows, whole_windows

NOISE = 0.2 * 512  # the authors': uniform, this wide over the length of the text


@dataclass(frozen=True, slots=True)
class Stage:
    """``until`` this share of the training: what is minimised, and by what the learning rate is multiplied."""

    mix: Mix
    until: float = 1.0
    rate: float = 1.0


class ChainObjective(Objective):
    """``decay``: what each step counts beside the one before it. ``detach``: steps are fed states without gradient.

    ``noise``: on the verifier's states that the draft is fed while it trains, as EAGLE-1 and HASS are.
    """

    def __init__(  # noqa: PLR0913  what tells one kind of draft from another
        self,
        draft: Draft,
        teacher: Teacher,
        stages: Sequence[Stage],
        *,
        steps: int,
        decay: float,
        detach: bool,
        noise: bool,
    ) -> None:
        """Raises UsageError for losses on states when these are not as wide as the verifier's."""
        super().__init__()
        width, theirs = draft.head.shape[1], teacher.head.shape[1]
        if width != theirs and any(stage.mix.on_states for stage in stages):
            raise UsageError(
                f"the draft's states are {width} wide and the verifier's {theirs}: no loss can compare them",
                hint="leave losses on states out of the mix: --loss soft_ce",
            )
        self.draft, self.teacher, self.stages = draft, teacher, tuple(stages)
        self.steps, self.detach, self.noise = steps, detach, noise
        self.decay = torch.tensor([decay**step for step in range(steps)], dtype=torch.float64)
        self.mix = self.stages[0].mix

    def at(self, progress: float) -> float:
        stage = next((stage for stage in self.stages if progress < stage.until), self.stages[-1])
        self.mix = stage.mix
        return stage.rate

    def weights(self, batch: Batch) -> Tensor:
        return counted_rows(batch, self.steps).sum(dim=1).double().cpu()

    def forward(self, batch: Batch, share: Tensor, *, measure: bool, seed: int) -> Outcome:
        layout = Layout(self.counted(batch, seed))
        if not len(layout):
            return Outcome(zero_loss(self.draft), Sums.zero(self.steps))
        chain = self.chain(batch, layout.counted, seed)
        guesses = Guesses(
            states=layout.of(chain, "for_head"),
            final=batch.final[layout.after],
            coefficients=layout.there * share.to(batch.final)[:, None],
        )
        judged = judge(guesses, self.draft.head, self.teacher, self.mix.on_logits, measure=measure)
        loss, losses = judged.loss, judged.losses
        if self.mix.on_states:
            guessed = layout.of(chain, "hidden_states")
            of_states = self.mix.of_states(guessed, guesses.final.expand_as(guessed))
            loss, losses = loss + (of_states * guesses.coefficients).sum(), losses + of_states.detach()
        return Outcome(loss, sums_of(layout, losses, judged, whole_windows(batch, self.steps) & layout.counted))

    def counted(self, batch: Batch, seed: int) -> Tensor:
        """[K, S] bool: the rows that are learned at each step."""
        return counted_rows(batch, self.steps)

    def chain(self, batch: Batch, counted: Tensor, seed: int) -> list[Step]:
        """What the draft computes, step by step, for the ``counted`` rows at least."""
        states = (_noisy(batch, seed) if self.noise and self.training else batch.states).to(batch.final.dtype)
        return unroll(self.draft, batch, states, self.steps, rows=_later_rows(counted), detach=self.detach)


def _later_rows(counted: Tensor) -> Tensor:
    """[A] the rows that any step after the first needs. On a GPU all of them: kernels are compiled for one number."""
    if counted.is_cuda:
        return torch.arange(counted.shape[1], device=counted.device)
    return counted[1:].any(dim=0).nonzero()[:, 0]


def _noisy(batch: Batch, seed: int) -> Tensor:
    """The states with the authors' noise: at work a draft is fed its own, which are a little off as well."""
    random = torch.Generator().manual_seed(seed)
    noise = torch.rand(batch.states.shape, generator=random).to(batch.states.device) - 0.5
    return batch.states + noise * (NOISE / batch.lengths[batch.documents])[:, None]
