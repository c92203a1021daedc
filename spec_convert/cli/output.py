"""How commands speak: results on stdout as text or JSON, problems on stderr with a hint of what to type next."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import Any

import click

from spec_convert.errors import Refused, SpecConvertError
from spec_convert.findings import Finding, Level
from spec_convert.narration import colour_wanted
from spec_convert.reports.escape import one_line

DEBUG = "SPEC_CONVERT_DEBUG"
COLOURS = {Level.ERROR: "red", Level.WARNING: "yellow", Level.NOTE: "cyan"}

json_option: Callable[[Any], Any] = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


def show(text: str) -> None:
    """Text on stdout. A reader that has left (`| head`) ends the output, not the work: the exit code stays true."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_json(value: Any) -> None:
    show(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinities, but published configs hold some: they are shown as text."""
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; the last one as long as it likes."""
    lines = [list(header), *([one_line(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        show("  ".join([*cells, line[-1]]).rstrip())


def show_findings(findings: Iterable[Finding]) -> None:
    """Findings on stderr, each with its rule, so that `spec-convert explain RULE` can say more."""
    for finding in findings:
        message = f"{finding.where}: {finding.message} [{finding.rule}]"
        _complain(finding.level, one_line(message), one_line(finding.hint))


def show_error(problem: SpecConvertError) -> None:
    if isinstance(problem, Refused):
        show_findings(problem.findings)
    else:
        _complain(Level.ERROR, one_line(problem.message), problem.hint)


def _complain(level: Level, message: str, hint: str) -> None:
    label = click.style(level.value, fg=COLOURS[level], bold=True) if colour_wanted() else level.value
    click.echo(f"{label}: {message}", err=True)
    if hint:
        click.echo(f"  hint: {hint}", err=True)


def as_problem(failure: Exception) -> SpecConvertError:
    """The failure itself when the user can mend it, else an internal error, which the debug switch raises instead."""
    if isinstance(failure, SpecConvertError):
        return failure
    if os.environ.get(DEBUG):
        raise failure
    message = f"internal error: {type(failure).__name__}: {failure}"
    return SpecConvertError(message, hint=f"this is a bug: report it with the output of {DEBUG}=1")
