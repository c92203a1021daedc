"""The report as code scanning reads it.

The schema below is written by hand: the part of SARIF 2.1.0 that we use, with what the standard requires, and nothing
else allowed.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema

from spec_convert.findings import Finding, Level
from spec_convert.reports import RENDERERS, Checked, Report
from spec_convert.rules import RULES


def exactly(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = {**required, **(optional or {})}
    return {"type": "object", "required": [*required], "properties": properties, "additionalProperties": False}


def many(items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


STRING = {"type": "string", "minLength": 1}
TEXT = exactly({"text": STRING})
LEVEL = {"enum": ["none", "note", "warning", "error"]}
URI = {"type": "string", "format": "uri-reference", "pattern": r"^[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]+$"}
RULE = exactly({
    "id": STRING, "shortDescription": TEXT, "fullDescription": TEXT, "help": TEXT,
    "defaultConfiguration": exactly({"level": LEVEL}),
})  # fmt: skip
LOCATION = exactly(
    {"physicalLocation": exactly({"artifactLocation": exactly({"uri": URI})})},
    {"logicalLocations": many(exactly({"fullyQualifiedName": STRING}), uniqueItems=True)},
)
RESULT = exactly({
    "ruleId": STRING, "level": LEVEL, "message": TEXT, "locations": many(LOCATION, minItems=1),
    "partialFingerprints": exactly({"primaryLocationLineHash": STRING}),
})  # fmt: skip
DRIVER = exactly({"name": STRING, "version": STRING, "rules": many(RULE, uniqueItems=True)})
RUN = exactly({"tool": exactly({"driver": DRIVER}), "results": many(RESULT)})
SARIF = exactly({"$schema": STRING, "version": {"const": "2.1.0"}, "runs": many(RUN, minItems=1)})


def results(report: Report) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RENDERERS["sarif"](report))["runs"][0]["results"]
    return found


def fingerprints(report: Report) -> list[str]:
    return [result["partialFingerprints"]["primaryLocationLineHash"] for result in results(report)]


def finding(where: str, message: str = "is odd") -> Finding:
    return Finding(rule="house-rule", level=Level.NOTE, where=where, message=message)


def report_of(*findings: Finding) -> Report:
    return Report(checked=(Checked(source="a", format=None, findings=findings),))


def test_sarif_has_what_the_standard_requires(report):
    jsonschema.validate(json.loads(RENDERERS["sarif"](report)), SARIF)


def test_a_clean_run_is_a_log_with_an_empty_list_of_results():
    log = json.loads(RENDERERS["sarif"](Report(checked=())))
    jsonschema.validate(log, SARIF)
    assert log["runs"][0]["results"] == []


def test_a_tensor_is_a_logical_location_in_its_file(report):
    assert results(report)[4] == {
        "ruleId": "wrong-shape",
        "level": "error",
        "message": {"text": "model.safetensors: fc.weight: has shape [64, 128], 100% of its rows: expected [64, 192]"},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": "drafts/broken/model.safetensors"}},
                "logicalLocations": [{"fullyQualifiedName": "fc.weight"}],
            }
        ],
        "partialFingerprints": {"primaryLocationLineHash": "1226cff29628e6fd:1"},
    }


def test_only_broken_rules_of_the_catalogue_are_described(report):
    rules = json.loads(RENDERERS["sarif"](report))["runs"][0]["tool"]["driver"]["rules"]
    assert [(rule["id"], rule["help"]["text"]) for rule in rules] == [
        (code, RULES[code].do) for code in ("missing-tensor", "wrong-shape")
    ]


def test_every_result_has_its_own_fingerprint(report):
    assert len(set(fingerprints(report))) == len(fingerprints(report)) == 6


def test_a_finding_keeps_its_fingerprint_when_its_message_or_its_neighbours_change():
    before = report_of(finding("fc.weight", "is 3"))
    after = report_of(finding("embed_tokens.weight"), finding("fc.weight", "is 4"))
    assert fingerprints(after)[1] == fingerprints(before)[0]


def test_two_findings_of_one_rule_at_one_place_are_told_apart():
    first, second = fingerprints(report_of(finding("fc.weight", "is 3"), finding("fc.weight", "is 4")))
    assert first != second


def test_braces_are_doubled_because_the_standard_reads_single_ones_as_placeholders():
    assert results(report_of(finding("w", "holds {0}")))[0]["message"]["text"] == "w: holds {{0}}"


def test_a_message_cannot_make_a_link():
    text = results(report_of(replace(finding("w"), message="[click](https://example.com)")))[0]["message"]["text"]
    assert "](" not in text
