"""Findings for a person at a terminal: one line each, its hint below, the count last."""

from __future__ import annotations

from spec_convert.findings import Finding, Report
from spec_convert.reports.escape import one_line
from spec_convert.reports.fold import fold_findings


def render(report: Report) -> str:
    lines = [
        line
        for checked in report.checked
        for finding in fold_findings(checked.findings)
        for line in _lines(checked.source, finding)
    ]
    return "\n".join([*lines, report.in_words])


def subject(source: str, finding: Finding) -> str:
    """``source: where``, or only the source when the finding is about all of it."""
    return one_line(source if finding.where == source else f"{source}: {finding.where}")


def _lines(source: str, finding: Finding) -> list[str]:
    line = f"{subject(source, finding)}: {finding.level}[{finding.rule}]: {one_line(finding.message)}"
    return [line, f"    hint: {one_line(finding.hint)}"] if finding.hint else [line]
