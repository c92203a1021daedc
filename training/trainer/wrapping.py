"""An objective spread over processes: what its gradients, its states and its full weights are then."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from spec_convert.training.batches.batch import Batch
from spec_convert.training.objectives.objective import Objective, Outcome
from spec_convert.training.trainer.plan import Amp
from spec_convert.training.trainer.processes import Processes


class Wrapped:
    """An objective on its device, with weights in float32, whose gradients are means over all processes.

    ddp: every process holds all of it. fsdp: each holds a share of the weights, gradients and moments; the weights are
    gathered for the duration of a step.

    ddp is not torch's: that one arranges gradients anew in its buckets after the first step, and where one lies there
    decides in which order the parts of three processes and more are added. A run that goes on would end otherwise than
    one left alone. A draft is a few large tensors, which need no buckets.
    """

    def __init__(self, objective: Objective, processes: Processes, amp: Amp) -> None:
        for parameter in objective.parameters():
            parameter.data = parameter.data.float()
        self.objective = objective.to(processes.device).train()
        self._processes, self._device, self._amp = processes, processes.device, amp
        match processes.parallelism:
            case "ddp":
                for parameter in objective.parameters():
                    dist.broadcast(parameter.data, src=0)
            case "fsdp":
                mesh = init_device_mesh(processes.device.type, (processes.world,))
                fully_shard(objective, mesh=mesh)

    def outcome(self, batch: Batch, share: Tensor, *, measure: bool, seed: int) -> Outcome:
        """Of a batch on the CPU. What draws from torch's own generator draws from ``seed`` too."""
        torch.manual_seed(seed)
        with self._precision():
            return self.objective(batch.to(self._device), share.to(self._device), measure=measure, seed=seed)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        with warnings.catch_warnings(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._amp == "bf16"):
            # Norms keep their weights in float32, which is meant.
            warnings.filterwarnings("ignore", "Mismatch dtype between input and weight", UserWarning)
            yield

    @contextmanager
    def gradients(self, *, last: bool) -> Iterator[None]:
        """Around both passes of a batch: only with the ``last`` of a step are gradients exchanged."""
        if isinstance(self.objective, FSDPModule):
            self.objective.set_requires_gradient_sync(last)
            self.objective.set_reshard_after_backward(last)
        yield
        if self._processes.parallelism == "ddp" and last:
            self._average()

    def _average(self) -> None:
        """Gradients become means over all processes. One that a process has no part in counts as zeros there."""
        for parameter in self.objective.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)
                parameter.grad /= self._processes.world

    def weights(self) -> dict[str, Tensor]:
        """The objective's own tensors by name, this process's part of each: writing into them changes them."""
        return dict(self.objective.state_dict())

    def draft(self, *, keep: bool) -> dict[str, Tensor]:
        """The draft's tensors, whole, on the CPU. All processes must ask; those that do not ``keep`` get none."""
        whole = {}
        for name, tensor in self.objective.draft.state_dict().items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if keep:
                whole[name] = full.detach().to("cpu", copy=True)
        return whole


def whole_number(number: Tensor) -> float:
    """A number that processes may hold together."""
    return float(number.full_tensor() if isinstance(number, DTensor) else number)
