"""Findings for a person at a terminal: one line each, its hint below; what each checkpoint came to; the count last."""

from __future__ import annotations

from collections.abc import Iterator

from spec_convert.findings import Checked, Finding, Report
from spec_convert.reports.escape import one_line
from spec_convert.reports.fold import fold_findings
from spec_convert.reports.verdict import looked_at, verdict


def render(report: Report) -> str:
    lines = [line for checked in report.checked for line in _checkpoint(checked)]
    return "\n".join([*lines, report.in_words])


def _checkpoint(checked: Checked) -> Iterator[str]:
    for finding in fold_findings(checked.findings):
        yield from _lines(checked.source, finding)
    if checked.format is not None:  # otherwise its one finding has said it
        yield one_line(f"{checked.source}: {checked.format}, {looked_at(checked)}: {verdict(checked)}")


def subject(source: str, finding: Finding) -> str:
    """``source: where``, or only the source when the finding is about all of it."""
    return one_line(source if finding.where == source else f"{source}: {finding.where}")


def _lines(source: str, finding: Finding) -> list[str]:
    line = f"{subject(source, finding)}: {finding.level}[{finding.rule}]: {one_line(finding.message)}"
    return [line, f"    hint: {one_line(finding.hint)}"] if finding.hint else [line]
