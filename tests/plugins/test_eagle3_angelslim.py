"""AngelSlim's EAGLE-3: told apart by little, trained with a rotary base that its config does not say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert import detect

Make = Callable[..., Any]
TRAINERS = {"architectures": ["Eagle3LlamaForCausalLM"], "target_model_type": "qwen3"}


@pytest.fixture
def angelslim(eagle3: Make) -> Make:
    """As its trainer's configs are: `angelslim(rope_theta=1e6)`."""
    return lambda **changes: eagle3(**TRAINERS | changes)


@pytest.mark.parametrize(
    "marks",
    [
        TRAINERS,
        {"architectures": ["LlamaForCausalLMEagle3"], "tie_word_embeddings": True},
        {"architectures": ["LlamaForCausalLMEagle3"], "modal_type": "VLM"},
    ],
)
def test_its_names_and_marks_are_known(eagle3: Make, marks: dict[str, Any]) -> None:
    converted = eagle3(**marks, rope_theta=10000.0).convert(validate=True)
    assert converted.conversion.format == "eagle3-angelslim"
    assert converted.config["eagle_aux_hidden_state_layer_ids"] == [2, 4, 5]
    assert converted.config["norm_before_residual"] is False
    assert converted.layer["tie_word_embeddings"] is False
    assert converted.findings == {}


@pytest.mark.parametrize(
    ("more", "owner"),
    [
        ({"eagle_config": {"use_last_layernorm": True}}, "eagle3-modelopt"),
        ({"_torchspec_version": "0.1.0"}, "eagle3-torchspec"),
    ],
)
def test_with_the_marks_of_others_it_is_theirs(eagle3: Make, more: dict[str, Any], owner: str) -> None:
    published = {"architectures": ["LlamaForCausalLMEagle3"], "tie_word_embeddings": True}
    assert detect(eagle3(**published, **more).write()).format == owner


def test_the_base_that_was_trained_is_written_with_a_warning(angelslim: Make) -> None:
    converted = angelslim(rope_theta=1e6).convert(validate=True)
    assert converted.layer["rope_theta"] == 10000.0
    warned = converted.findings["rope-not-as-config"]
    assert warned.level == "warning"
    assert "rope_theta 1e+06" in warned.message
    assert "`--rope-theta 1e+06`" in warned.hint


@pytest.mark.parametrize("base", [10000.0, 1e6])
def test_the_flag_settles_the_base(angelslim: Make, base: float) -> None:
    converted = angelslim(rope_theta=1e6).convert(rope_theta=base)
    assert converted.layer["rope_theta"] == base
    assert "rope-not-as-config" not in converted.findings


def test_a_base_in_the_keys_of_transformers_5_is_not_read_either(angelslim: Make) -> None:
    parameters = {"rope_type": "default", "rope_theta": 1e6}
    converted = angelslim(rope_theta=..., rope_parameters=parameters).convert(validate=True)
    assert converted.layer["rope_theta"] == 10000.0
    assert "rope-not-as-config" in converted.findings


@pytest.mark.parametrize("kind", ["linear", "dynamic"])
def test_a_scaling_is_read_by_its_factor_alone(angelslim: Make, kind: str) -> None:
    scaling = {"type": kind, "factor": 2.0, "alpha": 1000.0}
    converted = angelslim(rope_theta=10000.0, rope_scaling=scaling).convert(validate=True)
    assert converted.layer["rope_scaling"] == {"rope_type": kind, "factor": 2.0}
    said = converted.findings["rope-not-as-config"]
    assert "says alpha" in said.message
    assert not said.hint


def test_of_two_kinds_its_trainer_reads_the_older_key(angelslim: Make) -> None:
    scaling = {"type": "linear", "rope_type": "dynamic", "factor": 2.0}
    assert angelslim(rope_scaling=scaling).convert().layer["rope_scaling"]["rope_type"] == "linear"


def test_a_scaling_without_a_factor_is_refused(angelslim: Make) -> None:
    assert "factor" in angelslim(rope_scaling={"type": "dynamic"}).refusal()["config-key-missing"].message


def test_a_scaling_that_its_trainer_does_not_know_is_taken_as_it_is_said(angelslim: Make) -> None:
    scaling = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 1024}
    layer = angelslim(rope_theta=1e6, rope_scaling=scaling).convert(validate=True).layer
    assert (layer["rope_theta"], layer["rope_scaling"]) == (1e6, scaling)


@pytest.mark.parametrize(
    "scaling",
    [
        {"type": "mrope", "mrope_section": [1, 1, 1]},
        {"type": "default", "rope_type": "default", "mrope_interleaved": True, "mrope_section": [1, 1, 1]},
    ],
)
def test_three_positions_a_token_are_refused(angelslim: Make, scaling: dict[str, Any]) -> None:
    draft = angelslim(rope_theta=1e6, rope_scaling=scaling)
    refused = draft.refusal()["not-representable"]
    assert "three positions" in refused.message
    assert "`--rope-theta`" in refused.hint
    assert draft.set(rope_scaling=None).convert(rope_theta=1e6).layer["rope_theta"] == 1e6


def test_a_head_is_never_tied_to_an_embedding_in_the_file(angelslim: Make) -> None:
    draft = angelslim(tie_word_embeddings=True)
    draft.tensors["embed_tokens.weight"] = torch.ones(32, 16)
    written = draft.convert(validate=True).tensors
    assert torch.equal(written["lm_head.weight"], draft.tensors["lm_head.weight"])
