"""What lies where in the folder of a training, and whose it is."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from spec_convert.errors import UsageError
from spec_convert.training.store.manifest import replace_text

STATE = re.compile(r"step_[0-9]+(_open)?")
NUMBERS = "state.json"  # of a state: its contract, and how far it is


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`states/step_000123` to resume from, `epoch_0001` and so on: drafts, `best`: a link to one of them.

    `metrics.jsonl` holds what was logged, `run.json` what was asked for, `report.html` shows both.
    """

    path: Path

    @property
    def states(self) -> Path:
        return self.path / "states"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def run(self) -> Path:
        return self.path / "run.json"

    @property
    def logs(self) -> Path:
        """Of trackers that were not given another place."""
        return self.path / "logs"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def best(self) -> Path:
        return self.path / "best"

    def draft(self, epoch: int) -> Path:
        """The draft after ``epoch`` epochs, the first being 1."""
        return self.path / f"epoch_{epoch:04d}"

    def drafts(self) -> list[Path]:
        return sorted(self.path.glob("epoch_[0-9]*"))

    def point_at_best(self, epoch: int) -> None:
        fresh = self.path / ".best"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self.draft(epoch).name)
        fresh.replace(self.best)

    def write_request(self, request: Mapping[str, object]) -> None:
        replace_text(self.run, json.dumps(request, indent=2) + "\n")

    def move_aside(self) -> Path | None:
        """Give all of a training's files a folder of their own within this one; None: there were none."""
        names = (self.states, self.metrics, self.run, self.report, self.best, self.logs, *self.drafts())
        ours = [path for path in names if os.path.lexists(path)]
        if not ours:
            return None
        aside = next(place for number in count(1) if not (place := self.path / f"replaced-{number}").exists())
        aside.mkdir()
        for path in ours:
            path.rename(aside / path.name)
        return aside


def all_states(states: Path) -> list[Path]:
    """The oldest first."""
    ours = (path for path in states.glob("step_*") if STATE.fullmatch(path.name))
    return sorted(ours, key=lambda path: (_step(path), not path.name.endswith("_open")))


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step_").removesuffix("_open"))


def claim(path: Path, what: str = "training") -> int:
    """Make the folder, where it is not there, this process's alone until the returned file is closed, or it ends.

    ``what`` writes into it, as messages say. Raises UsageError.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as reason:
        raise UsageError(
            f"cannot write into {path}: {reason.strerror}", hint="give a folder that you may write to"
        ) from reason
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise UsageError(
            f"another {what} is writing into {path}", hint="wait for it, or give a folder of its own"
        ) from None
    return lock


@contextmanager
def claimed(path: Path, what: str) -> Iterator[None]:
    """`claim` for the length of a block."""
    lock = claim(path, what)
    try:
        yield
    finally:
        os.close(lock)
