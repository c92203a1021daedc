"""What there is to say about a checkpoint, as values: every renderer and every exit code reads the same list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is. Only errors refuse a checkpoint."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One entry of the catalogue in `rules/`: what a finding with this code means."""

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

    def to_json(self) -> dict[str, str]:
        names = ("rule", "level", "where", "message", "hint")
        return {name: str(getattr(self, name)) for name in names}


def errors(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level is Level.ERROR]


class Depth(StrEnum):
    """How deep validation looks. Each level includes the ones before it."""

    HEADERS = "headers"  # config, names, shapes, dtypes; vocabulary maps by value. Nothing of a Hub id is downloaded
    TENSORS = "tensors"  # every number, and the verifier's where they are compared. Streamed, memory stays flat
    FORWARD = "forward"  # the reference draft runs on random input: finite and deterministic
    ACCEPTANCE = "acceptance"  # the draft helps its verifier to answer prompts, and is accepted often enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One checkpoint that was looked at: as the user named it, the format it was taken for, what was found.

    ``reached`` is the deepest level that was looked at: errors end the look before the draft is run. None: the
    checkpoint could not be read. ``missed`` is the level at which errors ended the look, which was then seen in part
    or not at all; None: all that was asked for was seen. ``unified``: servers read the checkpoint as it lies.
    ``set_aside`` are the rules of errors that whoever reads the report chose to leave out, or to count for less.
    """

    source: str
    format: str | None
    findings: tuple[Finding, ...]
    reached: Depth | None = None
    missed: Depth | None = None
    unified: bool = False
    set_aside: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[Level, int]:
        levels = [finding.level for finding in self.findings]
        return {level: levels.count(level) for level in Level}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Every checkpoint of one run, in the order of the command line."""

    checked: tuple[Checked, ...]

    @property
    def counts(self) -> dict[Level, int]:
        return {level: sum(checked.counts[level] for checked in self.checked) for level in Level}

    @property
    def has_errors(self) -> bool:
        return self.counts[Level.ERROR] > 0

    @property
    def in_words(self) -> str:
        """For example ``2 errors, 1 warning in 1 checkpoint``."""
        return f"{in_words(self.counts)} in {plural(len(self.checked), 'checkpoint')}"


def in_words(counts: Mapping[Level, int]) -> str:
    """For example ``2 errors, 1 warning``."""
    return ", ".join(plural(count, level) for level, count in counts.items() if count) or "no findings"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
