"""The document of `validate --format json` as models: what scripts may rely on. Source of `schemas/`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class CheckedSource(Strict):
    """One checkpoint of the run, as it was named on the command line, and its format where one was recognised.

    `level` is the deepest that was looked at: errors end the look. `set_aside` are the rules of errors that `--ignore`,
    `--select` or `severity` left out of the findings, or let count for less.
    """

    source: str
    format: str | None
    level: Literal["headers", "tensors", "forward", "acceptance"] | None
    set_aside: list[str]


class ReportedFinding(Strict):
    """One finding. `spec-convert explain RULE` says what its rule means; `hint` is empty where there is none."""

    source: str
    rule: str
    level: Literal["error", "warning", "note"]
    where: Annotated[str, Field(description="A file, a tensor or a config key")]
    message: str
    hint: str


class Summary(Strict):
    """How many findings of each level, and in how many checkpoints."""

    errors: Count
    warnings: Count
    notes: Count
    checkpoints: Count


class ValidationReport(Strict):
    """What `spec-convert validate --format json` prints."""

    schema_version: Literal[1]
    checked: list[CheckedSource]
    findings: list[ReportedFinding]
    summary: Summary
