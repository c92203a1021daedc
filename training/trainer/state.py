"""A training on disk, from which it goes on to the very bits it would have reached: whole or not there at all."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from spec_convert.errors import UsageError
from spec_convert.training.trainer.folder import NUMBERS, all_states
from spec_convert.training.trainer.processes import Processes
from spec_convert.training.trainer.progress import Progress


def write_state(  # noqa: PLR0913  what a state holds, and where it goes
    states: Path,
    tensors: Mapping[str, Tensor],
    progress: Progress,
    contract: Mapping[str, Any],
    *,
    keep: int,
    processes: Processes,
    epoch_open: bool,
) -> Path:
    """Write a state into the folder ``states`` and remove older ones but the last ``keep``.

    All processes must ask, each with its own part of ``tensors``. ``epoch_open``: the epoch that ends with this step
    is not evaluated and saved yet. Raises UsageError when the disk does not take it; the states before are kept then.
    """
    name = f"step_{progress.step:06d}" + "_open" * epoch_open
    partial, path = states / f".{name}.partial", states / name
    if processes.on_first(path.exists):
        return path  # nothing has changed since
    with _on_disk(states):
        processes.on_first(lambda: _prepare(states, partial))
        with _quietly():
            save(dict(tensors), checkpoint_id=partial, no_dist=processes.world == 1)
        numbers = json.dumps({"contract": contract, "progress": progress.to_json()}, indent=1)
        processes.on_first(lambda: _publish(states, partial, path, numbers, keep))
    return path


def _prepare(states: Path, partial: Path) -> None:
    with _on_disk(states):
        partial.mkdir(parents=True)


def _publish(states: Path, partial: Path, path: Path, numbers: str, keep: int) -> None:
    with _on_disk(states):
        (partial / NUMBERS).write_text(numbers)
        partial.rename(path)
    tidy(states, keep)


def tidy(states: Path, keep: int) -> None:
    """Remove all states but the last ``keep``, and what killed runs left half written. Raises UsageError."""
    with _on_disk(states):
        for old in all_states(states)[:-keep]:
            old.rename(states / f".{old.name}.removed")
        for left in states.glob(".*"):
            shutil.rmtree(left)


@contextmanager
def _quietly() -> Iterator[None]:
    """torch warns of what `no_dist` says."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


@contextmanager
def _on_disk(states: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, CheckpointException) as reason:
        raise UsageError(
            f"cannot write a state into {states}: {reason}",
            hint="make room, and run the same command again: it goes on from the state before",
        ) from reason


def read_state(path: Path, tensors: Mapping[str, Tensor], *, processes: Processes) -> None:
    """Fill ``tensors``, of which each process has its own part, from the state. Raises UsageError."""
    try:
        with _quietly():
            load(dict(tensors), checkpoint_id=path, no_dist=processes.world == 1)
    except (OSError, CheckpointException) as reason:
        raise _unreadable(path, reason) from reason


def read_numbers(path: Path) -> tuple[dict[str, Any], Progress]:
    """The contract that the state was written under, and how far it is. Raises UsageError."""
    try:
        numbers = json.loads((path / NUMBERS).read_text())
        return numbers["contract"], Progress(**numbers["progress"])
    except (OSError, ValueError, KeyError, TypeError) as reason:
        raise _unreadable(path, reason) from reason


def _unreadable(path: Path, reason: BaseException) -> UsageError:
    return UsageError(
        f"cannot go on from {path}: {str(reason) or type(reason).__name__}",
        hint="remove it, to go on from the state before it, or start anew: --no-resume-from-checkpoint",
    )
