"""`run.json` of a pipeline or demo: what was asked for, and what became of each stage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from spec_convert.errors import UsageError
from spec_convert.training.documents import read_object, require_version, understood
from spec_convert.training.store.manifest import replace_text

Kind = Literal["pipeline", "demo"]
OWN_STAGE = "report"  # makes the page
State = Literal["done", "failed", "running", "waiting", "interrupted"]


class StageRecord(BaseModel):
    """``inputs``: a digest of all that decides what comes out. ``content``: of what came out, once it is done.

    ``seconds`` are those of all runs with the same inputs, in which ``tokens`` went through it, where they are counted.
    What is not known is not in the file. What stays "running" was killed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    state: State
    inputs: str = ""
    command: tuple[str, ...] = ()
    started: str = ""
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    log: str = ""
    outputs: tuple[str, ...] = ()
    content: str = ""
    tokens: int | None = None


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    kind: Kind
    spec_convert: str
    settings: dict[str, Any]
    stages: dict[str, StageRecord]

    @property
    def shown(self) -> dict[str, StageRecord]:
        """Without the stage that makes the page: it is still running whenever a run writes one."""
        return {name: stage for name, stage in self.stages.items() if name != OWN_STAGE}

    def of(self, name: str) -> StageRecord:
        return self.stages.setdefault(name, StageRecord(state="waiting"))

    def to_json(self) -> dict[str, Any]:
        stages = {name: stage.model_dump(mode="json", exclude_defaults=True) for name, stage in self.stages.items()}
        return self.model_dump(mode="json", exclude={"stages"}) | {"stages": stages}

    def write(self, path: Path) -> None:
        """At one instant. Raises UsageError."""
        try:
            replace_text(path, json.dumps(self.to_json(), indent=2) + "\n")
        except OSError as reason:
            hint = "make room there, or give a folder that you may write to with `--folder`"
            raise UsageError(f"cannot write {path}: {reason.strerror}", hint=hint) from reason


def is_record(document: Mapping[str, Any]) -> bool:
    """A training's `run.json` has no stages."""
    return "stages" in document


def record_of(document: dict[str, Any], path: Path, *, hint: str) -> Record:
    """What was read in ``path``. Raises UsageError."""
    require_version(document, path, 1, hint=hint)
    return understood(Record, document, path, hint=hint)


def open_record(path: Path, kind: Kind, settings: Mapping[str, Any]) -> Record:
    """That of the run before, or an empty one, with what is asked for now. Nothing is written.

    Raises UsageError when it is damaged, or that of something else.
    """
    before = record_before(path, kind)
    stages = before.stages if before else {}
    return Record(kind=kind, spec_convert=version("spec-convert"), settings=dict(settings), stages=stages)


def record_before(path: Path, kind: Kind) -> Record | None:
    """As the run before has left it; None: there was none. Raises UsageError as `open_record` does."""
    another = "give a folder of its own with `--folder`"
    hint = f"{another}, or move that file away"
    if (document := read_object(path, hint=hint)) is None:
        return None
    if not is_record(document):
        raise UsageError(f"{path} is not that of a {kind}: it has no stages", hint=another)
    before = record_of(document, path, hint=hint)
    if before.kind != kind:
        raise UsageError(f"{path} is that of a {before.kind}, not of a {kind}", hint=another)
    return before


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
