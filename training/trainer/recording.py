"""What is kept of a training's numbers: lines on disk, trackers, and a bar or now and then a line for who looks on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_convert.narration import EVERY, bar, length, say
from spec_convert.training.trainer.folder import RunFolder
from spec_convert.training.trainer.journal import Journal
from spec_convert.training.trainer.metrics import Metrics
from spec_convert.training.trainer.processes import Processes
from spec_convert.training.trainer.progress import Progress
from spec_convert.training.trainer.trackers import Log, Tracked, tracking

if TYPE_CHECKING:
    from tqdm import tqdm

SOON = 5.0  # seconds to the first line for who looks on; those after it come ever more slowly


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """Which trackers are logged to, besides `metrics.jsonl`; None: in `logs`, by the folder's name."""

    names: Sequence[str] = ()
    log_dir: Path | None = None
    run_name: str | None = None


@dataclass
class Recorder:
    """In processes other than the first it only counts."""

    progress: Progress
    total: int  # steps
    journal: Journal | None = None
    log: Log | None = None
    bar: tqdm[Any] | None = None  # on a terminal, in place of lines

    def __post_init__(self) -> None:
        self._began, self._first_step, self._told = time.monotonic(), self.progress.step, -math.inf

    def write(self, kind: str, facts: Mapping[str, float | None], metrics: Metrics | None = None) -> dict[str, Any]:
        """A line of the log, which is returned. ``kind``: train, held_out or skipped."""
        step = self.progress.step
        line = {"step": step, "kind": kind, **facts, **(metrics.to_json() if metrics else {})}
        numbers = {**{name: fact for name, fact in facts.items() if fact is not None}, **dict(metrics or ())}
        self.progress.lines += 1
        if self.journal and self.log:
            self.journal.write(line)
            self.log({f"{kind}/{name}": number for name, number in numbers.items()}, step)
        return line

    def tell(self, line: Mapping[str, Any]) -> None:
        """Say how it goes: beside the bar, or else in a line, unless there was one a moment ago."""
        now = time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix_str(in_words(line), refresh=False)
        elif self.journal and now - self._told >= min(EVERY, max(SOON, (now - self._began) / 10)):
            self._told = now
            pace = (now - self._began) / max(1, line["step"] - self._first_step)
            words = [
                f"step {line['step']:,} of {self.total:,}",
                in_words(line),
                f"{line['tokens_per_second']:,.0f} tokens/s",
            ]
            say(f"{', '.join(words)}, about {length(pace * (self.total - line['step']))} to go")

    def step(self) -> None:
        """One more is done."""
        if self.bar is not None:
            self.bar.update()


@contextmanager
def recording(  # noqa: PLR0913  where to, and of what
    track: Tracking,
    folder: RunFolder,
    request: Mapping[str, Any],
    progress: Progress,
    processes: Processes,
    *,
    total: int,
) -> Iterator[Recorder]:
    """Raises UsageError when a tracker is not there."""
    if not processes.first:
        yield Recorder(progress, total)
        return
    tracked = Tracked(
        log_dir=track.log_dir or folder.logs, run_name=track.run_name or folder.path.resolve().name,
        run_id=progress.run_id, step=progress.step, request=request,
    )  # fmt: skip
    with (
        closing(Journal(folder.metrics, lines=progress.lines)) as journal,
        tracking(track.names, tracked) as log,
        bar(total, unit="step", done=progress.step) as drawn,
    ):
        yield Recorder(progress, total, journal, log, drawn)


def in_words(line: Mapping[str, Any]) -> str:
    """The loss and tau of a line, as far as they are known."""
    return ", ".join(f"{name} {line[name]:.3f}" for name in ("loss", "tau") if line.get(name) is not None)
