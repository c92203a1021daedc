"""EAGLE-1 and EAGLE-2: what of a checkpoint counts, the tensors or the config, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert import load_draft

Make = Callable[..., Any]


def biased(draft: Any, layer: int = 0, parts: str = "qkv") -> Any:
    for part in parts:
        rows = draft.tensors[f"layers.{layer}.self_attn.{part}_proj.weight"].shape[0]
        draft.tensors[f"layers.{layer}.self_attn.{part}_proj.bias"] = torch.full((rows,), 0.5)
    return draft


def test_a_plain_draft_is_written_so_that_a_stock_vllm_serves_it(eagle: Make) -> None:
    config = eagle().convert(validate=True).config
    assert config["model_type"] == "eagle"
    assert config["model"]["architectures"] == ["LlamaForCausalLM"]
    assert config["architectures"] == ["EagleLlamaForCausalLM"]


def test_every_tensor_of_the_source_is_in_the_output_unchanged(eagle: Make) -> None:
    draft = eagle(layers=2)
    written = draft.convert().tensors
    assert written.keys() == draft.tensors.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in draft.tensors.items())


def test_the_layers_in_the_file_count_and_not_those_in_the_config(eagle: Make) -> None:
    converted = eagle(layers=2, num_hidden_layers=32).convert()
    assert converted.layer["num_hidden_layers"] == 2
    assert "layer-count-differs" in converted.findings


def test_a_layer_number_that_is_skipped_is_refused(eagle: Make) -> None:
    refusal = eagle(layers=2).rename("layers.1.", "layers.2.").refusal()
    assert "layers.1." in refusal["missing-tensor"].where


def test_query_key_and_value_biases_are_kept(eagle: Make) -> None:
    converted = biased(eagle()).convert(validate=True)
    assert converted.layer["qkv_bias"] is True
    assert converted.layer["attention_bias"] is False
    assert torch.equal(converted.tensors["layers.0.self_attn.k_proj.bias"], torch.full((12,), 0.5))


@pytest.mark.parametrize("missing", "qkv")
def test_two_of_the_three_attention_biases_are_refused(eagle: Make, missing: str) -> None:
    refusal = biased(eagle(), parts="qkv".replace(missing, "")).refusal()
    assert refusal["missing-tensor"].where == f"layers.0.self_attn.{missing}_proj.bias"


def test_attention_biases_in_only_one_of_two_layers_are_refused(eagle: Make) -> None:
    assert "layers.1." in biased(eagle(layers=2)).refusal()["missing-tensor"].where
    assert "layers.0." in biased(eagle(layers=2), layer=1).refusal()["missing-tensor"].where


def test_attention_biases_in_all_layers_are_kept(eagle: Make) -> None:
    converted = biased(biased(eagle(layers=2)), layer=1).convert(validate=True)
    assert "layers.1.self_attn.q_proj.bias" in converted.tensors


@pytest.mark.parametrize("said", [{}, {"bias": True}])
def test_the_fusion_bias_is_kept_whether_or_not_the_config_speaks_of_it(eagle: Make, said: dict[str, bool]) -> None:
    draft = eagle(**said)
    draft.tensors["fc.bias"] = torch.full((16,), 0.25)
    converted = draft.convert(validate=True)
    assert converted.conversion.format == "eagle"
    assert converted.config["fusion_bias"] is True
    assert torch.equal(converted.tensors["fc.bias"], torch.full((16,), 0.25))


def test_a_fusion_bias_that_the_config_denies_is_hass_and_kept(eagle: Make) -> None:
    draft = eagle(bias=False)
    draft.tensors["fc.bias"] = torch.ones(16)
    converted = draft.convert()
    assert converted.conversion.format == "hass"
    assert converted.config["fusion_bias"] is True


def test_a_config_that_speaks_of_a_bias_does_not_make_one(eagle: Make) -> None:
    converted = eagle(bias=True).convert(validate=True)
    assert converted.config["fusion_bias"] is False
    assert "fc.bias" not in converted.tensors


@pytest.mark.parametrize("said", [True, False])
def test_the_bias_key_never_reaches_the_output(eagle: Make, said: bool) -> None:
    converted = eagle(bias=said).convert()
    assert '"bias"' not in (converted.output / "config.json").read_text()


def test_a_draft_with_a_fusion_bias_does_not_pretend_to_be_served_by_a_stock_vllm(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["fc.bias"] = torch.ones(16)
    converted = draft.convert()
    assert "model_type" not in converted.config
    assert "needs-the-vllm-plugin" in converted.findings


def test_no_fusion_bias_drops_it_with_a_warning(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["fc.bias"] = torch.ones(16)
    converted = draft.convert(fusion_bias=False)
    assert converted.config["fusion_bias"] is False
    assert converted.dropped == {"fc.bias": "--no-fusion-bias"}
    assert converted.findings["flag-contradicts-tensors"].level == "warning"


def test_a_fusion_bias_is_not_made_up_on_request(eagle: Make) -> None:
    assert eagle().refusal(fusion_bias=True)["flag-without-tensors"].where == "--fusion-bias"


def test_layernorms_are_not_made_up_on_request(eagle: Make) -> None:
    assert eagle().refusal(layernorms=True)["flag-without-tensors"].where == "--layernorms"


@pytest.mark.parametrize("norm", ["layers.0.input_layernorm.weight", "norm.weight"])
def test_norms_that_eagle_does_not_have_are_refused_with_the_reason(eagle: Make, norm: str) -> None:
    draft = eagle()
    draft.tensors[norm] = torch.full((16,), 1.5)
    refused = draft.refusal()["refused-tensor"]
    assert refused.where == norm
    assert "another function" in refused.message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_first_norm_of_nothing_but_ones_is_a_placeholder_and_dropped(eagle: Make, dtype: torch.dtype) -> None:
    draft = eagle()
    draft.tensors["layers.0.input_layernorm.weight"] = torch.ones(16, dtype=dtype)
    assert "placeholder" in draft.convert(validate=True).dropped["layers.0.input_layernorm.weight"]


def test_a_first_norm_with_a_single_trained_number_is_no_placeholder(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["layers.0.input_layernorm.weight"] = torch.ones(16).index_fill(0, torch.tensor([5]), 1.25)
    assert "refused-tensor" in draft.refusal()


def test_a_head_of_its_own_is_refused_with_what_to_do(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["lm_head.weight"] = torch.ones(32, 16)
    refused = draft.refusal()["refused-tensor"]
    assert refused.where == "lm_head.weight"
    assert "take it out" in refused.message


def test_without_num_key_value_heads_every_head_has_its_own(eagle: Make) -> None:
    draft = eagle(num_key_value_heads=...)
    for part in "kv":
        draft.tensors[f"layers.0.self_attn.{part}_proj.weight"] = torch.ones(24, 16)
    assert draft.convert().layer["num_key_value_heads"] == 4


def test_max_sequence_length_is_another_name_of_max_position_embeddings(eagle: Make) -> None:
    draft = eagle(max_position_embeddings=..., max_sequence_length=7777)
    assert draft.convert().layer["max_position_embeddings"] == 7777


def test_as_many_positions_are_stated_as_the_verifier_has_because_vllm_stops_drafting_there(eagle: Make) -> None:
    """Measured with vLLM 0.32: a draft that states 16 positions is not asked again once a text is that long."""
    converted = eagle(max_position_embeddings=777).convert()
    assert converted.layer["max_position_embeddings"] == converted.config["model"]["max_position_embeddings"] == 2048
    assert "positions-extended" in converted.findings


def test_under_dynamic_scaling_the_number_of_positions_is_part_of_the_function(eagle: Make) -> None:
    scaling = {"rope_type": "dynamic", "factor": 2.0}
    converted = eagle(max_position_embeddings=777, rope_scaling=scaling).convert()
    assert converted.layer["max_position_embeddings"] == 777
    assert "positions-end-early" in converted.findings


def test_the_head_size_is_that_of_the_tensors(eagle: Make) -> None:
    converted = eagle(head_dim=4).convert(validate=True)
    assert converted.layer["head_dim"] == 6
    assert "head-dim-differs" in converted.findings


@pytest.mark.parametrize(
    "key", ["hidden_size", "intermediate_size", "num_attention_heads", "vocab_size", "hidden_act", "rms_norm_eps"]
)
def test_a_fact_that_only_the_config_tells_is_never_made_up(eagle: Make, key: str) -> None:
    assert key in eagle(**{key: ...}).refusal()["config-key-missing"].message


@pytest.mark.parametrize(("key", "value"), [("num_attention_heads", "4"), ("hidden_size", -16), ("rms_norm_eps", True)])
def test_a_fact_of_the_wrong_kind_is_refused(eagle: Make, key: str, value: object) -> None:
    assert key in eagle(**{key: value}).refusal()["config-key-invalid"].message


@pytest.mark.parametrize("name", ["layers.0.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq"])
def test_rotary_frequencies_in_the_file_are_dropped_for_a_reason(eagle: Make, name: str) -> None:
    draft = eagle()
    draft.tensors[name] = torch.ones(3)
    assert draft.convert().dropped == {name: "recomputed from rope_theta"}


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_what_trainers_put_before_every_name_is_taken_off(eagle: Make, wrapper: str) -> None:
    draft = eagle()
    plain = set(draft.tensors)
    converted = draft.rename("", wrapper).convert()
    assert set(converted.tensors) == plain
    assert converted.conversion.to_json()["tensors"]["moved"][0]["sources"][0].startswith(wrapper)


def test_an_embedding_of_its_own_is_kept(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["embed_tokens.weight"] = torch.full((32, 16), 0.125)
    assert torch.equal(load_draft(draft.convert().output).embed_tokens.weight, torch.full((32, 16), 0.125))


def test_weights_that_are_no_floats_are_refused(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["fc.weight"] = torch.ones(16, 32, dtype=torch.int8)
    assert draft.refusal()["wrong-dtype"].where == "fc.weight"


def test_a_draft_quantised_to_eight_bits_is_refused(eagle: Make) -> None:
    draft = eagle()
    draft.tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in draft.tensors.items()}
    assert draft.refusal().keys() == {"weights-quantised"}
    draft.tensors = {name: tensor.to(torch.int8) for name, tensor in draft.tensors.items()}
    assert draft.refusal().keys() == {"wrong-dtype"}


def test_the_dtype_of_the_tensors_is_written_and_not_that_of_the_config(eagle: Make) -> None:
    draft = eagle(torch_dtype="float16")
    draft.tensors = {name: tensor.bfloat16() for name, tensor in draft.tensors.items()}
    converted = draft.convert()
    assert converted.config["torch_dtype"] == "bfloat16"
    assert converted.findings["dtype-differs"].level == "note"
