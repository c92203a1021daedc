"""The rotary embedding: base and scaling in both spellings, and what is refused because it would be guessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]


def test_an_absent_rope_base_is_the_10000_it_was_trained_with(eagle: Make) -> None:
    converted = eagle(rope_theta=...).convert()
    assert converted.layer["rope_theta"] == 10000.0
    assert converted.findings["rope-theta-absent"].level == "note"


def test_the_rope_base_given_by_flag_wins(eagle: Make) -> None:
    assert eagle().convert(rope_theta=123.0).layer["rope_theta"] == 123.0


def test_the_rope_parameters_of_transformers_5_are_read(eagle: Make) -> None:
    parameters = {"rope_type": "default", "rope_theta": 250000.0}
    layer = eagle(rope_theta=..., rope_parameters=parameters).convert(validate=True).layer
    assert (layer["rope_theta"], layer["rope_scaling"]) == (250000.0, None)


@pytest.mark.parametrize("spelling", ["rope_type", "type"])
def test_a_scaling_that_scales_nothing_is_left_out(eagle: Make, spelling: str) -> None:
    assert eagle(rope_scaling={spelling: "default"}).convert().layer["rope_scaling"] is None


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_the_scaling_of_llama3_is_kept(eagle: Make, key: str) -> None:
    scaling = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    assert eagle(**{key: scaling}).convert(validate=True).layer["rope_scaling"] == scaling


def test_a_whole_number_as_factor_is_written_as_the_float_that_servers_ask_for(eagle: Make) -> None:
    scaling = eagle(rope_scaling={"rope_type": "linear", "factor": 4}).convert(validate=True).layer["rope_scaling"]
    assert isinstance(scaling["factor"], float)
    assert scaling["factor"] == 4


def test_a_rope_base_of_transformers_5_that_is_none_is_refused(eagle: Make) -> None:
    draft = eagle(rope_theta=..., rope_parameters={"rope_type": "default", "rope_theta": "large"})
    assert "rope_theta" in draft.refusal()["config-key-invalid"].message


def test_a_scaling_that_does_not_say_its_kind_is_refused(eagle: Make) -> None:
    parameters = {"full_attention": {"rope_type": "default", "rope_theta": 1e6}}
    assert "rope_type" in eagle(rope_parameters=parameters).refusal()["config-key-invalid"].message


def test_a_scaling_by_no_finite_number_is_refused(eagle: Make) -> None:
    draft = eagle(rope_scaling={"rope_type": "yarn", "factor": float("inf")})
    assert "rope_scaling" in draft.refusal()["config-key-invalid"].where


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("more", [{"mrope_section": [1, 1, 1]}, {"factor": 4.0}])
def test_a_default_kind_that_asks_for_more_is_refused(eagle: Make, key: str, more: dict[str, Any]) -> None:
    refused = eagle(**{key: {"rope_type": "default"} | more}).refusal()["not-representable"]
    assert next(iter(more)) in refused.message


@pytest.mark.parametrize("kind", [{"rope_type": "default"}, {"rope_type": "linear", "factor": 2.0}])
def test_a_rotation_of_only_a_part_of_each_head_is_refused(eagle: Make, kind: dict[str, Any]) -> None:
    refused = eagle(rope_parameters=kind | {"partial_rotary_factor": 0.5}).refusal()["not-representable"]
    assert "partial_rotary_factor" in refused.message


def test_a_rotation_of_the_whole_head_may_be_spelt_out(eagle: Make) -> None:
    parameters = {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 1.0, "factor": None}
    assert eagle(rope_parameters=parameters).convert().layer["rope_scaling"] is None


def test_two_bases_are_refused_unless_the_flag_gives_one(eagle: Make) -> None:
    draft = eagle(rope_theta=10000.0, rope_parameters={"rope_type": "default", "rope_theta": 250000.0})
    assert "10000, 250000" in draft.refusal()["config-contradicts-itself"].message
    assert draft.convert(rope_theta=10000.0).layer["rope_theta"] == 10000.0


def test_the_same_base_twice_is_no_contradiction(eagle: Make) -> None:
    draft = eagle(rope_theta=250000, rope_parameters={"rope_type": "default", "rope_theta": 250000.0})
    assert draft.convert().layer["rope_theta"] == 250000.0


def test_two_scalings_are_refused(eagle: Make) -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    draft = eagle(rope_scaling=scaling, rope_parameters={"rope_type": "default"})
    assert "rope_scaling" in draft.refusal()["config-contradicts-itself"].message
    assert draft.set(rope_parameters=scaling).convert().layer["rope_scaling"] == scaling
