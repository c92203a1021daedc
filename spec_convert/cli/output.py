"""How commands speak: results on stdout as text or JSON, problems on stderr with a hint of what to type next."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from spec_convert.errors import Refused, SpecConvertError, Unreadable
from spec_convert.findings import Finding, Level
from spec_convert.narration import colour_wanted
from spec_convert.reports.escape import finite, one_line

if TYPE_CHECKING:
    from spec_convert.plan import Plan

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
    show(as_json_text(value))


def as_json_text(value: Any) -> str:
    return json.dumps(finite(value), indent=2, allow_nan=False)


def show_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; the last one as long as it likes."""
    lines = [list(header), *([one_line(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header) - 1)]
    for line in lines:
        *cells, last = line
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        show("  ".join([*padded, last]).rstrip())


def show_plan(plan: Plan) -> None:
    """What a dry run would do: a line for each tensor, then the config."""
    tensors = plan.tensors_json()
    for moved in tensors["moved"]:
        what = f"{moved['dtype']} {' x '.join(map(str, moved['shape']))}"
        show(one_line(f"{moved['operation']}  {', '.join(moved['sources'])} -> {moved['target']}  {what}"))
    for name, reason in tensors["dropped"].items():
        show(one_line(f"drop  {name}: {reason}"))
    show(plan.config_text.rstrip())


def refused_json(problem: Refused | Unreadable, *, started: float) -> dict[str, Any]:
    """What the documents of `convert` and `export` share when nothing was written: the keys and types, and why."""
    return {
        "output": None,
        "format": None,
        "tensors": {"moved": [], "dropped": {}},
        "config": None,
        "findings": [finding.to_json() for finding in problem.findings],
        "seconds": round(time.monotonic() - started, 3),
        "written": False,
    }


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


def show_warning(message: str, hint: str = "") -> None:
    _complain(Level.WARNING, one_line(message), hint)


def _complain(level: Level, message: str, hint: str) -> None:
    label = click.style(level.value, fg=COLOURS[level], bold=True) if colour_wanted() else level.value
    click.echo(f"{label}: {message}", err=True)
    if hint:
        click.echo(f"  hint: {hint}", err=True)


def as_problem(failure: Exception) -> SpecConvertError:
    """The failure itself when the user can mend it, else an internal error, which the debug switch raises instead.

    So it does with a bug of a plugin, whose author wants the traceback too.
    """
    from spec_convert.third_party import PluginFailed

    if os.environ.get(DEBUG) and (isinstance(failure, PluginFailed) or not isinstance(failure, SpecConvertError)):
        raise failure
    if isinstance(failure, SpecConvertError):
        return failure
    message = f"internal error: {type(failure).__name__}: {failure}"
    return SpecConvertError(message, hint=f"this is a bug: report it with the output of {DEBUG}=1")
