"""What there is to say about a checkpoint, as values: every renderer and every exit code reads the same list."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is. Only errors refuse a checkpoint."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One entry of the catalogue in `rules.py`: what a finding with this code means."""

    code: str
    level: Level
    says: str
    why: str
    do: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing seen: which rule, where (a file, a tensor or a config key), what, and what to type next."""

    rule: str
    level: Level
    where: str
    message: str
    hint: str = ""


def errors(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level is Level.ERROR]
