"""Findings for GitHub Actions: annotations in the log, and a table on the page of the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from spec_convert.errors import UsageError
from spec_convert.findings import Finding, Level, Report
from spec_convert.reports.escape import one_line
from spec_convert.reports.fold import fold_findings
from spec_convert.reports.place import place
from spec_convert.reports.text import subject
from spec_convert.reports.verdict import looked_at, verdict

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
ROWS = 200  # of findings: GitHub drops a summary of more than a megabyte without a word
_COMMANDS = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "notice"}
# Characters that mean something to Markdown, to HTML or to GitHub (@somebody, #1); as entities they mean themselves.
_ACTIVE = re.compile(r"[\\`*_\[\]<>&|~@#$!]")


def render(report: Report) -> str:
    # Folded first: GitHub shows few annotations of a step. The last line holds nothing that a checkpoint says, because
    # GitHub also obeys an older kind of command, `##[...]`, anywhere in a line that is not itself a `::command`.
    commands = [
        _annotation(checked.source, finding)
        for checked in report.checked
        for finding in fold_findings(checked.findings)
    ]
    return "\n".join([*commands, report.in_words])


def write_step_summary(report: Report, path: Path) -> None:
    """Appends checkpoints and findings as Markdown tables to the file that ``$GITHUB_STEP_SUMMARY`` names."""
    text = "\n".join(
        ["### spec-convert validate", "", *_checkpoints(report), *_findings(report), report.in_words, "", ""]
    )
    try:
        with path.open("a", encoding="utf-8") as summary:
            summary.write(text)
    except OSError as reason:
        raise UsageError(
            f"cannot write the step summary {path}: {reason.strerror}", hint=f"unset {STEP_SUMMARY} to do without"
        ) from reason


def _checkpoints(report: Report) -> list[str]:
    rows = [
        (
            _cell(checked.source), _cell(checked.format or "-"), looked_at(checked),
            *(str(checked.counts[level]) for level in Level), _cell(verdict(checked)),
        )
        for checked in report.checked
    ]  # fmt: skip
    return _table(("checkpoint", "format", "looked at", "errors", "warnings", "notes", "verdict"), rows)


def _findings(report: Report) -> list[str]:
    rows = [
        (
            finding.level, _cell(finding.rule), _cell(subject(checked.source, finding)),
            _cell(finding.message), _cell(finding.hint),
        )
        for checked in report.checked
        for finding in fold_findings(checked.findings)
    ]  # fmt: skip
    more = [f"The log has {len(rows) - ROWS} more.", ""] if len(rows) > ROWS else []
    return [*_table(("level", "rule", "where", "message", "hint"), rows[:ROWS]), *more]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""] if rows else []


def _annotation(source: str, finding: Finding) -> str:
    title = _property(f"spec-convert ({finding.rule})")
    file = _property(one_line(place(source, finding.where).path))
    hint = f"\nhint: {one_line(finding.hint)}" if finding.hint else ""
    message = _data(f"{subject(source, finding)}: {one_line(finding.message)}{hint}")
    return f"::{_COMMANDS[finding.level]} title={title},file={file}::{message}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _cell(text: str) -> str:
    return _ACTIVE.sub(lambda char: f"&#{ord(char[0])};", one_line(text))
