"""Findings for code scanning: a SARIF 2.1.0 log, whose results keep their identity from run to run."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import sha256
from importlib.metadata import version
from typing import Any

from spec_convert.findings import Finding, Report, Rule
from spec_convert.reports.escape import encodable
from spec_convert.reports.place import place
from spec_convert.rules import RULES

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def render(report: Report) -> str:
    found = [(checked.source, finding) for checked in report.checked for finding in checked.findings]
    # Only the rules that were broken: a reader of the log needs these, and `spec-convert explain` has the others.
    # A plugin's own rule may be missing from the catalogue; its results are complete without a description.
    codes = sorted({finding.rule for _, finding in found} & RULES.keys())
    driver = {"name": "spec-convert", "version": version("spec-convert"), "rules": [_rule(RULES[c]) for c in codes]}
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": _results(found)}]}
    return json.dumps(log, indent=2)


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "shortDescription": {"text": rule.says},
        "fullDescription": {"text": rule.why},
        "help": {"text": rule.do},
        "defaultConfiguration": {"level": rule.level},
    }


def _results(found: list[tuple[str, Finding]]) -> list[dict[str, Any]]:
    seen: Counter[tuple[str, str, str]] = Counter()
    results = []
    for source, finding in found:
        identity = (source, finding.rule, finding.where)
        seen[identity] += 1
        results.append(_result(source, finding, occurrence=seen[identity]))
    return results


def _result(source: str, finding: Finding, *, occurrence: int) -> dict[str, Any]:
    target = place(source, finding.where)
    # No region: weights have no lines. Code scanning would otherwise compute one fingerprint for all of a file.
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": target.uri}}}
    if target.name is not None:
        location["logicalLocations"] = [{"fullyQualifiedName": target.name}]
    return {
        "ruleId": finding.rule,
        "level": finding.level,
        "message": {"text": _message(finding)},
        "locations": [location],
        # GitHub reads this key and no other.
        "partialFingerprints": {"primaryLocationLineHash": _fingerprint(source, finding, occurrence)},
    }


def _message(finding: Finding) -> str:
    text = encodable(f"{finding.where}: {finding.message}" + (f"\nhint: {finding.hint}" if finding.hint else ""))
    # Braces are doubled by the standard (section 3.11.5); `](` could make a link of what a checkpoint says (3.11.6).
    return text.replace("{", "{{").replace("}", "}}").replace("](", "] (")


def _fingerprint(source: str, finding: Finding, occurrence: int) -> str:
    """Made without the message, whose numbers may change while the finding stays the same."""
    identity = json.dumps([source, finding.rule, finding.where])
    return f"{sha256(identity.encode()).hexdigest()[:16]}:{occurrence}"
