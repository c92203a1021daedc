"""`schemas/`: what is published is what the code writes, neither more nor less."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from spec_convert import convert
from spec_convert.published import SCHEMAS, schema_of, write_all
from spec_convert.reports import json_
from spec_convert.validation.validation import validate

FIXTURES = Path(__file__).parent / "goldens" / "fixtures"
PUBLISHED = Path(__file__).parents[1] / "schemas"
CASES = sorted(case.name for case in FIXTURES.iterdir() if case.is_dir())
ONE_OF_EACH = ["eagle1_llama3", "eagle1_vicuna", "eagle3_safeai", "eagle_mlp_beginner"]


@pytest.fixture
def written(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The config that converting a fixture writes."""
    case = FIXTURES / request.param
    convert(case / "checkpoint", tmp_path / "output", verifier=case / "verifier")
    config: dict[str, Any] = json.loads((tmp_path / "output" / "config.json").read_text())
    return config


def check(config: dict[str, Any]) -> None:
    kind = config["speculators_model_type"]
    Draft202012Validator(schema_of(kind)).validate(config)


def test_the_published_schemas_are_those_of_the_code(tmp_path: Path) -> None:
    write_all(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in PUBLISHED.glob("*.json")}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(schema_of(name))


@pytest.mark.parametrize("written", CASES, indirect=True)
def test_every_written_config_fits_its_schema(written: dict[str, Any]) -> None:
    check(written)


@pytest.mark.parametrize("written", ONE_OF_EACH, indirect=True)
def test_no_key_may_be_left_out(written: dict[str, Any]) -> None:
    native = {"model_type", "model"}  # written only where a stock vLLM serves the draft
    for key in written.keys() - native - {"speculators_model_type"}:
        with pytest.raises(ValidationError, match=key):
            check({name: value for name, value in written.items() if name != key})


@pytest.mark.parametrize("written", ONE_OF_EACH, indirect=True)
def test_no_key_may_be_added(written: dict[str, Any]) -> None:
    parts = [written, *(written[key] for key in ("speculators_config", "transformer_layer_config") if key in written)]
    for part in parts:
        part["something_new"] = True
        with pytest.raises(ValidationError, match="something_new"):
            check(written)
        del part["something_new"]


def test_the_report_of_validate_fits_its_schema(tmp_path: Path) -> None:
    report = validate([FIXTURES / "eagle1_vicuna" / "checkpoint", tmp_path / "nothing"])
    Draft202012Validator(schema_of("validation-report")).validate(json.loads(json_.render(report)))
