"""`run.json` of a demo: which commands are done, so that none is done twice and no half of one is taken for it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spec_convert.errors import Exit, UsageError
from spec_convert.training.demo.chapters import Stage
from spec_convert.training.layout import RunLayout
from spec_convert.training.store.manifest import replace_text

SCHEMA_VERSION, KIND = 1, "demo"
BY_A_SIGNAL = 128  # exit codes above it


@dataclass
class Record:
    """``stages``: by name, what is known of each. All commands after one that has run must run again."""

    run: RunLayout
    settings: dict[str, Any]
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    _before: str = ""  # what all commands so far were given
    _stale: bool = False

    def done(self, stage: Stage) -> bool:
        """Whether the command has run to its end on what is there now. To be asked of one stage after the other."""
        self._before = self._inputs(stage)
        known = self.stages.get(stage.name, {})
        same = known.get("state") == "done" and known.get("inputs") == self._before
        self._stale = self._stale or not same or not all(path.exists() for path in stage.makes)
        return not self._stale

    @contextmanager
    def running(self, stage: Stage, typed: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The stage's entry, whose ``exit_code`` the block sets. What stays `running` was killed."""
        entry = self.stages[stage.name] = {
            "state": "running", "inputs": self._before, "command": list(typed), "exit_code": None,
            "started": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": None,
            "outputs": [str(path.relative_to(self.run.path)) for path in stage.makes],
        }  # fmt: skip
        self.write()
        started = time.monotonic()
        yield entry
        code = entry["exit_code"]
        entry["state"] = "done" if code == Exit.CLEAN else "interrupted" if code > BY_A_SIGNAL else "failed"
        entry["seconds"] = round(time.monotonic() - started, 3)
        self.write()

    def write(self) -> None:
        facts = {
            "schema_version": SCHEMA_VERSION, "kind": KIND, "spec_convert": version("spec-convert"),
            "settings": self.settings, "stages": self.stages,
        }  # fmt: skip
        replace_text(self.run.record, json.dumps(facts, indent=2) + "\n")

    def _inputs(self, stage: Stage) -> str:
        """The same wherever the folder lies, and not once this or an earlier command is another one."""
        words = [self._in_folder(word) for word in stage.command]
        return sha256(json.dumps([self._before, words]).encode()).hexdigest()

    def _in_folder(self, word: str) -> str:
        """A path in the folder, also one behind `json=`, as it is called from there."""
        before, equals, path = word.rpartition("=")
        inside = Path(path).is_relative_to(self.run.path)
        return f"{before}{equals}{Path(path).relative_to(self.run.path)}" if inside else word


def open_record(run: RunLayout, settings: dict[str, Any], *, ours: Path) -> Record:
    """What an earlier demo left in the folder, or a fresh record in one that is empty but for ``ours``.

    Raises UsageError for a folder that holds anything else.
    """
    hint = f"give a folder of its own with `--folder`, or remove {run.path}"
    try:
        there = [path.name for path in run.path.iterdir()] if run.path.exists() else []
        if run.record.name not in there:
            if foreign := sorted(name for name in there if name != ours.name and not name.startswith(".")):
                raise UsageError(f"{run.path} holds {foreign[0]}, which no demo has left there", hint=hint)
            run.path.mkdir(parents=True, exist_ok=True)
            record = Record(run, settings)
        else:
            facts = json.loads(run.record.read_text(encoding="utf-8"))
            if (facts["schema_version"], facts["kind"]) != (SCHEMA_VERSION, KIND):
                raise UsageError(f"{run.path} holds another run: {facts['kind']}", hint=hint)
            record = Record(run, settings, facts["stages"])
        record.write()
    except OSError as reason:
        raise UsageError(f"cannot write into {run.path}: {reason.strerror}", hint=hint) from reason
    except (ValueError, KeyError, TypeError) as reason:
        raise UsageError(f"{run.record} is no record of a demo", hint=hint) from reason
    return record
