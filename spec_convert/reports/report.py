"""What `validate` found in all the checkpoints of one run: the one value that every renderer reads."""

from __future__ import annotations

from dataclasses import dataclass

from spec_convert.findings import Finding, Level

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One checkpoint that was looked at: as the user named it, the format it was taken for, what was found."""

    source: str
    format: str | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Every checkpoint of one run, in the order of the command line."""

    checked: tuple[Checked, ...]

    @property
    def counts(self) -> dict[Level, int]:
        levels = [finding.level for checked in self.checked for finding in checked.findings]
        return {level: levels.count(level) for level in Level}

    @property
    def has_errors(self) -> bool:
        return self.counts[Level.ERROR] > 0

    @property
    def in_words(self) -> str:
        """For example ``2 errors, 1 warning in 1 checkpoint``."""
        found = [_plural(count, level) for level, count in self.counts.items() if count]
        return f"{', '.join(found) or 'no findings'} in {_plural(len(self.checked), 'checkpoint')}"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
