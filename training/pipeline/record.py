"""`run.json` of a pipeline: what was asked for, and what became of each stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from spec_convert.errors import UsageError
from spec_convert.training.store.manifest import replace_text

State = Literal["done", "failed", "running", "waiting", "interrupted"]


class StageRecord(BaseModel):
    """``inputs``: a digest of all that decides what comes out. ``content``: of what came out, once it is done.

    ``seconds`` are those of all runs with the same inputs, in which ``tokens`` went through it, where they are counted.
    What is not known is not in the file.
    """

    model_config = ConfigDict(extra="forbid")

    state: State
    inputs: str = ""
    command: tuple[str, ...] = ()
    started: str = ""
    seconds: float = 0.0
    log: str = ""
    outputs: tuple[str, ...] = ()
    content: str = ""
    tokens: int | None = None


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    kind: Literal["pipeline"] = "pipeline"
    spec_convert: str
    settings: dict[str, Any]
    stages: dict[str, StageRecord]

    def of(self, name: str) -> StageRecord:
        return self.stages.setdefault(name, StageRecord(state="waiting"))

    def to_json(self) -> dict[str, Any]:
        stages = {name: stage.model_dump(mode="json", exclude_defaults=True) for name, stage in self.stages.items()}
        return self.model_dump(mode="json", exclude={"stages"}) | {"stages": stages}

    def write(self, path: Path) -> None:
        replace_text(path, json.dumps(self.to_json(), indent=2) + "\n")


def read_record(path: Path, *, version: str, settings: Mapping[str, Any]) -> Record:
    """That of the run before, or an empty one, with what is asked for now. Raises UsageError when it is damaged."""
    stages: Any = {}
    if path.exists():
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            stages = said["stages"] if said["kind"] == "pipeline" else None
        except (OSError, ValueError, LookupError, TypeError) as reason:
            raise _foreign(path, str(reason)) from reason
    try:
        return Record.model_validate({"spec_convert": version, "settings": dict(settings), "stages": stages})
    except ValidationError as error:
        raise _foreign(path, str(error.errors()[0]["msg"])) from error


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _foreign(path: Path, why: str) -> UsageError:
    hint = "give the run a folder of its own, or move that file away"
    return UsageError(f"{path} is not what a pipeline writes: {why}", hint=hint)
