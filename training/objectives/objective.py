"""What a trainer minimises, whatever the draft is."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from spec_convert.models.contract import Draft
from spec_convert.training.batches.batch import Batch
from spec_convert.training.objectives.sums import Sums


class Outcome(NamedTuple):
    loss: Tensor  # a number with a gradient: the sum over steps of share[k] * sums.loss[k]
    sums: Sums  # of this batch, without gradients


class Objective(nn.Module):
    """A draft and the loss of a batch: the module that is wrapped for several processes.

    Its parameters are the draft's; what belongs to the verifier is held in buffers, which are neither trained nor in
    ``state_dict()``.
    """

    draft: Draft
    decay: Tensor  # [K] float64, on the CPU: what each step of a chain counts beside the first

    @abstractmethod
    def weights(self, batch: Batch) -> Tensor:
        """[K] float64 on the CPU: the sum of the weights of the rows at each step, from masks and bounds alone.

        The trainer adds these over all batches of an optimiser step, on all ranks, before any of them is computed: so
        that the loss of a step is one mean, however it was cut into batches.
        """

    @abstractmethod
    def forward(self, batch: Batch, share: Tensor, *, measure: bool, seed: int) -> Outcome:
        """``share`` [K]: by what the summed losses of each step are multiplied.

        ``measure``: count hits, windows and alpha too, which reads the verifier's whole vocabulary. ``seed``: of all
        that is random in it. A batch without any weight gives a loss of zero that still has a gradient for every
        parameter, so that no process waits for another.
        """

    def at(self, progress: float) -> float:
        """Training is at ``progress``, from 0 to 1: an objective of several stages goes on to the one that is due.

        Returns by what the learning rate is multiplied there.
        """
        return 1.0

    if TYPE_CHECKING:

        def __call__(self, batch: Batch, share: Tensor, *, measure: bool, seed: int) -> Outcome: ...
