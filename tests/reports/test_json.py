"""The report as a script reads it."""

from __future__ import annotations

import json

import pytest

from spec_convert.reports import RENDERERS, Report
from spec_convert.reports.schema import ValidationReport

render = RENDERERS["json"]


def test_json_lists_every_finding_unfolded(report):
    document = json.loads(render(report))
    assert [finding["where"] for finding in document["findings"]] == [
        "layers.0.mlp.up_proj.weight",
        "layers.1.mlp.up_proj.weight",
        "layers.2.mlp.up_proj.weight",
        "layers.3.mlp.up_proj.weight",
        "model.safetensors: fc.weight",
        "config.json",
    ]


def test_a_finding_has_all_six_keys_even_without_a_hint(report):
    assert json.loads(render(report))["findings"][-1] == {
        "source": "drafts/broken",
        "rule": "house-rule",
        "level": "warning",
        "where": "config.json",
        "message": "names no author",
        "hint": "",
    }


def test_the_rest_of_the_document_counts_and_names_the_checkpoints(report):
    document = json.loads(render(report))
    del document["findings"]
    assert document == {
        "schema_version": 1,
        "checked": [
            {"source": "drafts/broken", "format": "eagle3", "level": "headers", "set_aside": []},
            {"source": "org/clean", "format": "eagle", "level": "tensors", "set_aside": []},
        ],
        "summary": {"errors": 5, "warnings": 1, "notes": 0, "checkpoints": 2},
    }


def test_lists_stay_lists_when_they_are_empty():
    document = json.loads(render(Report(checked=())))
    assert (document["checked"], document["findings"]) == ([], [])


@pytest.mark.parametrize("empty", [True, False])
def test_the_document_has_exactly_the_fields_of_its_model(report, empty):
    text = render(Report(checked=()) if empty else report)
    assert ValidationReport.model_validate_json(text).model_dump() == json.loads(text)
