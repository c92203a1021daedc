"""`spec-convert validate`: is a checkpoint right, for people and for CI."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spec_convert.cli.output import show
from spec_convert.errors import Exit
from spec_convert.reports import RENDERERS

if TYPE_CHECKING:
    from spec_convert.findings import Report

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
OUT_OF_REACH = ("no-such-source", "hub-")


@click.command(short_help="Look for everything wrong with checkpoints.")
@click.argument("sources", nargs=-1, required=True)
@click.option("--verifier", metavar="BASE", help="Also check that draft and verifier fit: a folder or Hub id.")
@click.option("--level", type=click.Choice(["headers", "tensors", "forward"]), default="headers", show_default=True)
@click.option("--format", "renderer", type=click.Choice(list(RENDERERS)), default="text", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
def validate(sources: tuple[str, ...], verifier: str | None, level: str, renderer: str, as_json: bool) -> Exit:
    """Look for everything wrong with the checkpoints SOURCES.

    Takes unified directories and every native format, which is judged by what `convert` would find. Level `headers`
    works on a Hub id without downloading weights; `tensors` looks at every number; `forward` runs the draft.
    """
    from spec_convert.validation import validate as check

    renderer = "json" if as_json else renderer
    report = check(sources, verifier=verifier, level=level)
    show(RENDERERS[renderer](report))
    if renderer == "github" and (summary := os.environ.get(STEP_SUMMARY)):
        from spec_convert.reports.github import write_step_summary

        write_step_summary(report, Path(summary))
    return _verdict(report)


def _verdict(report: Report) -> Exit:
    """A source that is not there, or a Hub that does not answer, says nothing about a checkpoint: no verdict."""
    findings = [finding for checked in report.checked for finding in checked.findings]
    if any(finding.rule.startswith(OUT_OF_REACH) for finding in findings):
        return Exit.UNUSABLE
    return Exit.FINDINGS if report.has_errors else Exit.CLEAN
