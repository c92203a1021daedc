"""The `run.json` of a pipeline or demo: what was asked for, and what became of each stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from spec_convert.training.report.documents import require_version, understood

SCHEMA_VERSION = 1
AGAIN = "spec-convert pipeline"
OWN_STAGE = "report"  # makes the page


class Stage(BaseModel):
    """What is not known is not there: a stage that waits has not started."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    state: Literal["done", "failed", "running", "waiting", "interrupted"]
    inputs: str | None = None
    command: tuple[str, ...] | None = None
    started: str | None = None
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    log: str | None = None
    outputs: tuple[str, ...] | None = None


class Record(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    kind: str
    spec_convert: str
    settings: dict[str, Any]
    stages: dict[str, Stage]

    @property
    def shown(self) -> dict[str, Stage]:
        """Without the stage that makes the page: it is still running whenever a run writes one."""
        return {name: stage for name, stage in self.stages.items() if name != OWN_STAGE}


def is_record(document: dict[str, Any]) -> bool:
    """A training's `run.json` has no stages."""
    return "stages" in document


def read_record(document: dict[str, Any], path: Path) -> Record:
    """Raises UsageError."""
    require_version(document, path, SCHEMA_VERSION, again=AGAIN)
    return understood(Record, document, path, again=AGAIN)
