"""The processes of a training: one, or those that torchrun started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from spec_convert.errors import SpecConvertError, UsageError
from spec_convert.narration import say
from spec_convert.training.trainer.plan import Parallelism, Plan

T = TypeVar("T")
BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}  # counts are summed on the CPU


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among the others."""

    rank: int
    world: int
    device: torch.device
    parallelism: Parallelism = "none"

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def say(self, message: str) -> None:
        if self.first:
            say(message)

    def total(self, numbers: Tensor) -> Tensor:
        """The sum of a CPU tensor over all processes."""
        if self.world > 1:
            numbers = numbers.clone()
            dist.all_reduce(numbers)
        return numbers

    def on_first(self, work: Callable[[], T]) -> T:
        """What ``work`` returns in the first process, in all of them. What it refuses is refused in all of them."""
        if self.world == 1:
            return work()
        answer: list[tuple[T | None, SpecConvertError | None]] = [(None, None)]
        if self.first:
            try:
                answer = [(work(), None)]
            except SpecConvertError as refusal:
                answer = [(None, refusal)]
        dist.broadcast_object_list(answer, src=0, device=torch.device("cpu"))
        result, refused = answer[0]
        if refused is not None:
            raise refused
        return result  # type: ignore[return-value]  # what `work` returned


@contextmanager
def joined(plan: Plan) -> Iterator[Processes]:
    """Join the other processes for this block. Raises UsageError when the plan does not fit how we were started."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if plan.parallelism == "none":
        if world > 1:
            raise UsageError(
                f"{world} processes would each train a draft of their own",
                hint="say how they share the work: ddp or fsdp, or start one process, without torchrun",
            )
        yield Processes(0, 1, _taken(plan.device, local=0))
        return
    if "RANK" not in os.environ:
        raise UsageError(
            f"{plan.parallelism} needs processes that torchrun started",
            hint="torchrun --nproc-per-node GPUS -m spec_convert train …",
        )
    device = _taken(plan.device, local=int(os.environ.get("LOCAL_RANK", "0")))
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group(BACKENDS[device.type])
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device, plan.parallelism)
    finally:
        if ours:
            dist.destroy_process_group()


def _taken(wanted: str | None, *, local: int) -> torch.device:
    """The device of this process, which is the current one from here on."""
    device = _device(wanted, local=local)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def _device(wanted: str | None, *, local: int) -> torch.device:
    if wanted is None:
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = None
    if device is None or device.type not in BACKENDS:
        raise UsageError(f"there is no device `{wanted}` to train on", hint="cpu, cuda or cuda:0")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise UsageError("torch sees no GPU here", hint="train on the CPU: --device cpu")
    number, there = local if device.index is None else device.index, torch.cuda.device_count()
    if number >= there:
        raise UsageError(
            f"there is no GPU {number}: torch sees {there}, counted from 0",
            hint="start a process for each GPU that is there, or name one: --device cuda:0",
        )
    return torch.device("cuda", number)
