"""Findings for a script: the JSON document that `schema.py` describes."""

from __future__ import annotations

import json
from typing import Any

from spec_convert.findings import Level, Report
from spec_convert.reports.escape import encodable

SCHEMA_VERSION = 1


def render(report: Report) -> str:
    # Not through the pydantic model: importing it would cost more than all of header-level validation.
    return json.dumps(_document(report), indent=2)


def _document(report: Report) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "checked": [
            {
                "source": encodable(checked.source),
                "format": checked.format,
                "level": checked.reached,
                "set_aside": list(checked.set_aside),
            }
            for checked in report.checked
        ],
        "findings": [
            {
                "source": encodable(checked.source),
                "rule": finding.rule,
                "level": finding.level,
                "where": encodable(finding.where),
                "message": encodable(finding.message),
                "hint": encodable(finding.hint),
            }
            for checked in report.checked
            for finding in checked.findings
        ],
        "summary": {
            "errors": report.counts[Level.ERROR],
            "warnings": report.counts[Level.WARNING],
            "notes": report.counts[Level.NOTE],
            "checkpoints": len(report.checked),
        },
    }
