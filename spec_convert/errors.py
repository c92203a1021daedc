"""The ways in which a request can fail, each with the exit code that the command line gives it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import IntEnum

from spec_convert.findings import Finding


class Exit(IntEnum):
    """Exit codes of every command."""

    CLEAN = 0
    FINDINGS = 1
    UNUSABLE = 2
    INTERRUPTED = 130


class SpecConvertError(Exception):
    """Anything that the user can mend. Never shown as a traceback."""

    exit_code = Exit.UNUSABLE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SpecConvertError):
    """The request itself cannot be carried out: a flag, an output folder, a missing extra."""


def unknown_name(kind: str, name: str, known: Collection[str], lister: str) -> UsageError:
    """No ``kind`` is called ``name``; the hint offers the nearest one, and the command that lists them."""
    from difflib import get_close_matches  # only a mistake pays for it

    near = get_close_matches(name, known, n=1)
    meant = f"did you mean `{near[0]}`? " if near else ""
    return UsageError(f"there is no {kind} `{name}`", hint=f"{meant}`{lister}` lists all of them")


class Unreadable(SpecConvertError):
    """A source that cannot be read: no such id, no network, a damaged file. Carries the finding that says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"{finding.where}: {finding.message}", hint=finding.hint)
        self.finding = finding
        self.findings = (finding,)


class Refused(SpecConvertError):
    """A checkpoint that was read and must not be converted. Carries every finding, not only the first."""

    exit_code = Exit.FINDINGS

    def __init__(self, findings: Sequence[Finding]) -> None:
        fatal = [finding for finding in findings if finding.level == "error"]
        assert fatal, "refused without an error finding"
        super().__init__("; ".join(f"{f.where}: {f.message}" for f in fatal), hint=fatal[0].hint)
        self.findings = tuple(findings)
