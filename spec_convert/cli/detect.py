"""`spec-convert detect`: which format a checkpoint is of, and what tells."""

from __future__ import annotations

from typing import Any

import click

from spec_convert.cli.output import json_option, show, show_findings, show_json
from spec_convert.errors import Exit, Refused


@click.command(short_help="Recognise the format of a draft.")
@click.argument("source")
@click.option("--revision", help="Branch, tag or commit of a Hub id.")
@json_option
def detect(source: str, revision: str | None, as_json: bool) -> Exit:
    """Recognise the draft checkpoint SOURCE: format, evidence, features.

    Reads headers only: nothing of a Hub id is downloaded.
    """
    from spec_convert.detection import detect as recognise

    try:
        detection = recognise(source, revision=revision)
    except Refused as refusal:
        if as_json:
            show_json(_refusal(source, refusal))
        raise
    show_findings(detection.findings)
    answer = detection.to_json()
    if as_json:
        show_json(answer)
        return Exit.CLEAN
    show(f"{answer['format']} (confidence {answer['confidence']:g}): {detection.winner.title}")
    for sign, words in (("+", answer["evidence"]["for"]), ("-", answer["evidence"]["against"])):
        for word in words:
            show(f"  {sign} {word}")
    for name, value in answer["features"].items():
        show(f"  {name}: {'not given' if value is None else value}")
    if answer["also_possible"]:
        show(f"  also possible: {', '.join(answer['also_possible'])}")
    return Exit.CLEAN


def _refusal(source: str, refusal: Refused) -> dict[str, Any]:
    """The same keys as an answer, so that a script can tell why there is none."""
    findings = [finding.to_json() for finding in refusal.findings]
    nothing: dict[str, Any] = {
        "format": None,
        "confidence": 0.0,
        "evidence": {"for": [], "against": []},
        "features": {},
    }
    return nothing | {"source": source, "findings": findings}
