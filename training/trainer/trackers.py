"""Where the numbers of a training can be looked at: tensorboard, wandb, trackio, each imported when asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spec_convert.errors import UsageError, unknown_name

PROJECT = "spec-convert"

Log = Callable[[Mapping[str, float], int], object]  # numbers by name, and the step that they belong to


@dataclass(frozen=True, slots=True)
class Tracked:
    """A training as trackers know it. ``step``: after which it goes on; what they hold of later steps is void."""

    log_dir: Path
    run_name: str
    run_id: str
    step: int
    request: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def _tensorboard(tracked: Tracked) -> Iterator[Log]:
    from torch.utils.tensorboard import SummaryWriter

    folder = tracked.log_dir / tracked.run_name
    with SummaryWriter(str(folder), purge_step=tracked.step + 1 if tracked.step else None) as writer:

        def log(numbers: Mapping[str, float], step: int) -> None:
            for name, number in numbers.items():
                writer.add_scalar(name, number, step)
            writer.flush()

        yield log


@contextmanager
def _wandb(tracked: Tracked) -> Iterator[Log]:
    wandb = import_module("wandb")

    tracked.log_dir.mkdir(parents=True, exist_ok=True)
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    with wandb.init(
        project=project, name=tracked.run_name, id=tracked.run_id, resume="allow", dir=tracked.log_dir,
        config=dict(tracked.request),
    ) as run:  # fmt: skip
        yield lambda numbers, step: run.log(dict(numbers), step=step)


@contextmanager
def _trackio(tracked: Tracked) -> Iterator[Log]:
    os.environ.setdefault("TRACKIO_DIR", str(tracked.log_dir))  # read when it is imported
    trackio = import_module("trackio")

    run = trackio.init(project=PROJECT, name=tracked.run_name, resume="allow", config=dict(tracked.request))
    try:
        yield lambda numbers, step: run.log(dict(numbers), step=step)
    finally:
        run.finish()


TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}


def require_trackers(names: Sequence[str]) -> None:
    """Raises UsageError when one is not known or not installed."""
    for name in names:
        if name not in TRACKERS:
            raise unknown_name("logger", name, TRACKERS, "spec-convert train --help")
        if find_spec(name) is None:
            raise UsageError(f"{name} is not installed", hint=f"pip install {name}")


@contextmanager
def tracking(names: Sequence[str], tracked: Tracked) -> Iterator[Log]:
    """Log to all of these trackers in this block."""
    with ExitStack() as stack:
        logs = [stack.enter_context(_started(name, tracked)) for name in names]
        yield partial(_to_all, logs)


@contextmanager
def _started(name: str, tracked: Tracked) -> Iterator[Log]:
    with ExitStack() as stack:
        try:
            log = stack.enter_context(TRACKERS[name](tracked))
        except Exception as reason:  # whatever a service says to a user who is not known to it
            raise UsageError(
                f"{name} does not start: {reason}",
                hint="log in to it, or leave it out: metrics.jsonl is always written",
            ) from reason
        yield log


def _to_all(logs: Sequence[Log], numbers: Mapping[str, float], step: int) -> None:
    for log in logs:
        log(numbers, step)
