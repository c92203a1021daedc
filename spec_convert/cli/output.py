"""How commands speak: results on stdout as text or JSON, problems on stderr with a hint of what to type next."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from spec_convert.errors import Refused, SpecConvertError
from spec_convert.findings import Finding, Level

json_option: Callable[[Any], Any] = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")

COLOURS = {Level.ERROR: "red", Level.WARNING: "yellow", Level.NOTE: "cyan"}


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; the last one as long as it likes."""
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        click.echo("  ".join([*cells, line[-1]]).rstrip())


def show_findings(findings: Iterable[Finding]) -> None:
    """Findings on stderr, each with its rule, so that `spec-convert explain RULE` can say more."""
    for finding in findings:
        level = click.style(finding.level.value, fg=COLOURS[finding.level], bold=True)
        click.echo(f"{level}: {finding.where}: {finding.message} [{finding.rule}]", err=True)
        if finding.hint:
            click.echo(f"  hint: {finding.hint}", err=True)


def show_error(problem: SpecConvertError) -> None:
    if isinstance(problem, Refused):
        show_findings(problem.findings)
        return
    click.echo(f"{click.style('error', fg='red', bold=True)}: {problem.message}", err=True)
    if problem.hint:
        click.echo(f"  hint: {problem.hint}", err=True)
