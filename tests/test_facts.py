"""Facts of a config: asked for all at once, and what is absent or cannot be meant is refused, never defaulted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.open import open_checkpoint


def refusal(values: dict[str, Any], **wanted: type) -> list[tuple[str, str]]:
    with pytest.raises(Refused) as refused:
        Facts(values).require(wanted)
    return [(finding.rule, finding.message) for finding in refused.value.findings]


def test_every_absent_or_mistyped_key_is_told_at_once() -> None:
    problems = refusal({"heads": "many", "act": "silu"}, hidden=int, heads=int, act=str)
    assert [rule for rule, _ in problems] == ["config-key-missing", "config-key-invalid"]
    assert [key in message for key, (_, message) in zip(("`hidden`", "`heads`"), problems, strict=True)] == [True, True]


def test_null_is_absent_as_published_configs_mean_it() -> None:
    assert not Facts({"head_dim": None}).has("head_dim")
    assert refusal({"head_dim": None}, head_dim=int)[0][0] == "config-key-missing"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, int), (True, float), (1, bool), (1.5, int), ("1", int), ("1e-6", float), ([], dict), ({}, list),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_invalid(value: Any, kind: type) -> None:
    assert [rule for rule, _ in refusal({"key": value}, key=kind)] == ["config-key-invalid"]


@pytest.mark.parametrize("value", [0, -1, -0.0, 1e999, float("nan"), 10**400])
def test_a_number_must_be_above_zero_and_finite(value: float) -> None:
    assert [rule for rule, _ in refusal({"key": value}, key=float)] == ["config-key-invalid"]


def test_a_whole_number_is_a_number_too() -> None:
    (theta,) = Facts({"rope_theta": 10000}).require({"rope_theta": float}).values()
    assert (theta, type(theta)) == (10000.0, float)


@pytest.mark.parametrize(("value", "kind"), [(False, bool), ({}, dict), ([], list), ("", str), (1, int)])
def test_what_is_there_is_handed_over_as_it_is(value: Any, kind: type) -> None:
    assert Facts({"key": value}).require({"key": kind}) == {"key": value}


def test_the_first_of_several_spellings_counts() -> None:
    facts = Facts({"new": None, "old": 4, "older": 8})
    assert facts.first(["new", "old", "older"], int) == 4


def test_without_any_spelling_the_first_one_is_asked_for() -> None:
    with pytest.raises(Refused, match="has no `new`"):
        Facts({}).first(["new", "old"], int)


def test_a_part_says_where_its_keys_were_looked_for() -> None:
    layer = Facts({"layer": {"heads": 0}}).part("layer")
    with pytest.raises(Refused, match=r"config\.json: layer: `heads` is 0"):
        layer.require({"heads": int})


@pytest.mark.parametrize("values", [{}, {"layer": None}, {"layer": [1]}])
def test_a_part_that_is_no_object_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="`layer`"):
        Facts(values).part("layer")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file({"fc.weight": np.zeros((2, 4), np.float32)}, tmp_path / "model.safetensors")
    return tmp_path


def test_a_checkpoint_without_config_is_refused_with_what_to_do(weights: Path) -> None:
    with pytest.raises(Refused) as refused:
        Facts.of(open_checkpoint(weights))
    (finding,) = refused.value.findings
    assert (finding.rule, finding.where) == ("config-missing", str(weights))
    assert finding.hint


def test_the_facts_of_a_checkpoint_are_its_config(weights: Path) -> None:
    (weights / "config.json").write_text(json.dumps({"hidden_size": 2}))
    assert Facts.of(open_checkpoint(weights)).require({"hidden_size": int}) == {"hidden_size": 2}
