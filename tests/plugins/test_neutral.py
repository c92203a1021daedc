"""Config keys that change the function and have no place in the unified config: neutral ones pass, others do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]
STRANGE = {
    "partial_rotary_factor": 0.5, "use_sliding_window": True, "embedding_multiplier": 12.0, "residual_multiplier": 0.2,
    "attention_multiplier": 0.01, "logits_scaling": 8.0, "logit_scale": 0.06, "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "quantization_config": {"quant_method": "fp8"},
    "layer_types": ["full_attention", "sliding_attention"],
}  # fmt: skip


@pytest.mark.parametrize("key", STRANGE)
def test_what_no_server_of_the_unified_draft_would_compute_is_refused(eagle: Make, key: str) -> None:
    refused = eagle(**{key: STRANGE[key]}).refusal()["not-representable"]
    assert key in refused.message
    assert "remove it" in refused.hint


@pytest.mark.parametrize("kind", ["eagle", "eagle3"])
def test_an_activation_that_no_server_has_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    refused = request.getfixturevalue(kind)(hidden_act="gelu").refusal()["not-representable"]
    assert "none but silu" in refused.message


def test_eagle3_is_held_to_the_same(eagle3: Make) -> None:
    assert "partial_rotary_factor" in eagle3(partial_rotary_factor=0.25).refusal()["not-representable"].message


def test_values_that_change_nothing_pass(eagle: Make) -> None:
    said = {"partial_rotary_factor": 1.0, "logits_scaling": 1, "quantization_config": None}
    said |= {"layer_types": ["full_attention"] * 32}  # as many as the verifier has: publishers copy its config
    assert eagle(sliding_window=131072, use_sliding_window=False, **said).convert(validate=True).findings == {}


def test_a_unified_layer_config_is_held_to_the_same(eagle3: Make) -> None:
    draft = eagle3()
    converted = draft.convert()
    draft.config, draft.tensors = converted.config, converted.tensors
    draft.config["transformer_layer_config"]["partial_rotary_factor"] = 0.5
    refused = draft.refusal()["not-representable"]
    assert refused.where == "config.json: transformer_layer_config"
