"""The objective of P-EAGLE (arXiv 2602.01469): every depth of a chain is a row of its own, and nothing is fed back.

The element of depth d of the chain at row i stands at position i + d and guesses token i + 2 + d:

    depth 0 embeds token i + 1 beside the verifier's state of token i
    deeper ones are masked: the mask token beside `mask_hidden`

It sees the elements of depth 0 up to row i, and those of its own chain up to itself: what a server's one causal pass
shows to the masked rows behind row i. Depths are computed one after the other only to say so with the attention of
unrolled chains; none depends on what another one gave.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.models.peagle import PEagleDraft
from spec_convert.training.batches.batch import Batch
from spec_convert.training.objectives.chains import ChainObjective, Stage
from spec_convert.training.objectives.objective import Outcome
from spec_convert.training.objectives.parallel_sampling import drawn_chains, planned_counts, shares
from spec_convert.training.objectives.teacher import Teacher
from spec_convert.training.unrolling.attention import Chains
from spec_convert.training.unrolling.unroll import Step

RATIO, LEAST = 0.7, 0.2  # of the chains that go one deeper


class ParallelObjective(ChainObjective):
    """``depths``: tokens guessed at once. ``ratio`` and ``least``: see `parallel_sampling`.

    The loss is the mean over all elements, so a depth counts by how many are drawn of it, times ``decay`` for each one
    before it. Where fewer chains go on than are planned for, those that are missing count nothing.
    """

    draft: PEagleDraft

    def __init__(  # noqa: PLR0913  what one training differs in from another
        self,
        draft: PEagleDraft,
        teacher: Teacher,
        stages: Sequence[Stage],
        *,
        depths: int,
        decay: float = 1.0,
        ratio: float = RATIO,
        least: float = LEAST,
    ) -> None:
        """Raises UsageError for a loss on states."""
        super().__init__(draft, teacher, stages, steps=depths, decay=decay, detach=False, noise=False)
        if any(stage.mix.on_states for stage in stages):
            raise UsageError(
                "a P-EAGLE draft hands no state on, so no loss can hold it to the verifier's",
                hint="leave losses on states out of the mix: --loss forward_kl",
            )
        self.shares = shares(depths, ratio=ratio, least=least)
        portions = torch.tensor(self.shares, dtype=torch.float64)
        self.decay = self.decay * portions / portions.sum()

    def weights(self, batch: Batch) -> Tensor:
        return planned_counts(batch, self.shares).double()

    def forward(self, batch: Batch, share: Tensor, *, measure: bool, seed: int) -> Outcome:
        outcome = super().forward(batch, share, measure=measure, seed=seed)
        untouched = self.draft.mask_hidden.sum() * 0.0  # by texts too short to go deeper: other processes wait for it
        return Outcome(outcome.loss + untouched, outcome.sums)

    def counted(self, batch: Batch, seed: int) -> Tensor:
        return drawn_chains(batch, self.shares, seed)

    def chain(self, batch: Batch, counted: Tensor, seed: int) -> list[Step]:
        """All rows at depth 0, and the ``counted`` ones at each depth after it."""
        states = batch.states.to(batch.final.dtype)
        rows = torch.arange(len(batch), device=states.device)
        # Beyond the end of the text any token will do: rows that embed one are seen by none that counts.
        tokens = batch.input_ids[(rows + 1).clamp(max=len(batch) - 1)]
        attend = Fewer(batch.bounds, rows)
        made = self.draft.states(tokens[None], states[None], batch.positions[None], fed_back=False, attend=attend)
        elements = [Step(rows, made.for_head[0], made.hidden_states[0])]
        for depth in range(1, self.steps):
            if not len(rows := counted[depth].nonzero()[:, 0]):
                break
            attend.keep(rows)
            made = self.draft.masked((batch.positions[rows] + depth)[None], attend=attend)
            elements.append(Step(rows, made.for_head[0], made.hidden_states[0]))
        return elements


class Fewer(Chains):
    """Chains of which some end at each step."""

    def keep(self, rows: Tensor) -> None:
        """The next step is of ``rows`` alone, each one of the step before."""
        place = torch.searchsorted(self.rows, rows)
        self._later = {layer: [kept[:, place] for kept in tensors] for layer, tensors in self._later.items()}
        self.rows = rows
        self._spans.pop(False, None)
