"""JSON of a run: there and understood, not there, or refused with what is wrong and what to type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from spec_convert.containers.strict_json import parse_object
from spec_convert.errors import Unreadable, UsageError

Model = TypeVar("Model", bound=BaseModel)


def read_object(path: Path, *, hint: str) -> dict[str, Any] | None:
    """None when it is not there. ``hint``: what to do about a damaged one. Raises UsageError."""
    try:
        return parse_object(path.read_bytes(), where=path.name, rule="config-unreadable")
    except FileNotFoundError:
        return None
    except OSError as reason:
        raise UsageError(f"{path} cannot be read: {reason.strerror}", hint="check its permissions") from reason
    except Unreadable as problem:
        raise UsageError(f"{path} {problem.finding.message}", hint=hint) from problem


def anew(command: str) -> str:
    """The hint of those who only read."""
    return f"write it anew: {command}; or move it away, to see the rest"


def require_version(document: dict[str, Any], path: Path, known: int, *, hint: str) -> None:
    """Raises UsageError when another version of spec-convert wrote it."""
    if document.get("schema_version") != known:
        said = document.get("schema_version")
        raise UsageError(f"{path} has the schema_version {said!r}; this spec-convert reads {known}", hint=hint)


def understood(model: type[Model], document: dict[str, Any], path: Path, *, hint: str) -> Model:
    """Raises UsageError, which names the first thing that is not as the model has it."""
    try:
        return model.model_validate_json(json.dumps(document))  # to a strict model lists are tuples in JSON alone
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{path} is not as it was written: {where}: {first['msg']}", hint=hint) from error
