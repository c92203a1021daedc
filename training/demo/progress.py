"""How far a demo is: which commands are done, so that none is done twice and no half of one is taken for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from spec_convert.errors import Exit, UsageError
from spec_convert.training.demo.chapters import Stage
from spec_convert.training.layout import RunLayout
from spec_convert.training.record import Record, StageRecord, now, open_record, record_before

BY_A_SIGNAL = 128  # exit codes above it


@dataclass
class Progress:
    """All commands after one that has run must run again."""

    run: RunLayout
    record: Record
    _before: str = ""  # what all commands so far were given
    _stale: bool = False

    def done(self, stage: Stage) -> bool:
        """Whether the command has run to its end on what is there now. To be asked of one stage after the other."""
        self._before = self._inputs(stage)
        known = self.record.stages.get(stage.name)
        same = known is not None and known.state == "done" and known.inputs == self._before
        self._stale = self._stale or not same or not all(path.exists() for path in stage.makes)
        return not self._stale

    def follow(self, stage: Stage, typed: Sequence[str], command: Callable[[], int]) -> int:
        """Run the command, with a record of it before and after; returns its exit code."""
        started = StageRecord(state="running", inputs=self._before, command=tuple(typed), started=now())
        self._put(stage, started)
        began = time.monotonic()
        code = command()
        ended: dict[str, Any] = {"seconds": round(time.monotonic() - began, 3)}
        if code == Exit.CLEAN:
            made = tuple(str(path.relative_to(self.run.path)) for path in stage.makes)
            ended |= {"state": "done", "outputs": made}
        else:
            ended |= {"state": "interrupted" if code > BY_A_SIGNAL else "failed"}
        self._put(stage, started.model_copy(update=ended))
        return code

    def _put(self, stage: Stage, known: StageRecord) -> None:
        self.record.stages[stage.name] = known
        self.record.write(self.run.record)

    def _inputs(self, stage: Stage) -> str:
        """The same wherever the folder lies, and not once this or an earlier command is another one."""
        words = [self._in_folder(word) for word in stage.command]
        return sha256(json.dumps([self._before, words]).encode()).hexdigest()

    def _in_folder(self, word: str) -> str:
        """A path in the folder, also one behind `json=`, as it is called from there."""
        before, equals, path = word.rpartition("=")
        inside = Path(path).is_relative_to(self.run.path)
        return f"{before}{equals}{Path(path).relative_to(self.run.path)}" if inside else word


def open_progress(run: RunLayout, settings: dict[str, Any], *, ours: Path) -> Progress:
    """That of an earlier demo in the folder, or a fresh one in a folder that is empty but for ``ours``.

    Raises UsageError for a folder that holds anything else: the verbs would refuse to go on with it one by one.
    """
    before, record = record_before(run.record, "demo"), open_record(run.record, "demo", settings)
    if before and before.stages and (before.settings, before.spec_convert) != (settings, record.spec_convert):
        raise UsageError(
            f"{run.path} holds the demo of spec-convert {before.spec_convert} with `--epochs "
            f"{before.settings.get('epochs')}`, not that of {record.spec_convert} with {settings['epochs']}",
            hint=f"give a folder of its own with `--folder`, or remove {run.path}",
        )
    names = sorted(path.name for path in run.path.iterdir() if not path.name.startswith("."))
    foreign = [name for name in names if name != ours.name]
    if foreign and not run.record.exists():
        raise UsageError(
            f"{run.path} holds {foreign[0]}, and no record of a demo that has left it there",
            hint=f"give a folder of its own with `--folder`, or remove {run.path}",
        )
    record.write(run.record)
    return Progress(run, record)
