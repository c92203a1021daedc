"""EAGLE-3 as its authors publish it: rows, norms, layer ids and the flags that the config leaves unsaid."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert import convert, load_draft

from ..conftest import SIZES
from ..tiny import random

Make = Callable[..., Any]


def test_the_layer_called_midlayer_becomes_the_first_layer(eagle3: Make) -> None:
    draft = eagle3()
    converted = draft.convert(validate=True)
    before, after = (t["self_attn.q_proj.weight"] for t in (_under(draft.tensors, "midlayer."),
                                                            _under(converted.tensors, "layers.0.")))  # fmt: skip
    assert torch.equal(before, after)
    assert not _under(converted.tensors, "midlayer.")


def _under(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def test_every_flag_that_servers_would_guess_is_written(eagle3: Make) -> None:
    config = eagle3().convert().config
    flags = ("norm_before_residual", "norm_before_fc", "fc_norm", "norm_output")
    assert [config[flag] for flag in flags] == [False, False, False, False]
    assert "model_type" not in config
    assert config["transformer_layer_config"]["model_type"] == "llama"


def test_a_layer_called_layers_0_leaves_the_residual_open(eagle3: Make) -> None:
    refusal = eagle3(prefix="layers.0.").refusal()
    assert "--norm-before-residual" in refusal["norm-before-residual-unknown"].hint


@pytest.mark.parametrize("said", [True, False])
def test_the_flag_settles_the_residual(eagle3: Make, said: bool) -> None:
    draft = eagle3(prefix="layers.0.")
    converted = draft.convert(norm_before_residual=said, aux_layer_ids=[3, 5, 6], validate=True)
    assert converted.config["norm_before_residual"] is said


@pytest.mark.parametrize("said", [True, False])
def test_where_the_names_leave_the_residual_open_the_config_settles_it(eagle3: Make, said: bool) -> None:
    draft = eagle3(prefix="layers.0.", norm_before_residual=said)
    assert draft.convert(aux_layer_ids=[3, 5, 6]).config["norm_before_residual"] is said
    assert draft.convert(aux_layer_ids=[3, 5, 6], norm_before_residual=not said).config["norm_before_residual"] != said


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "LlamaForCausalLMEagle3"])
def test_a_residual_other_than_the_authors_code_computes_is_refused(eagle3: Make, architecture: str) -> None:
    draft = eagle3(norm_before_residual=True, architectures=[architecture])
    assert "--no-norm-before-residual" in draft.refusal()["flag-contradicts-dialect"].hint
    assert draft.convert(norm_before_residual=True).config["norm_before_residual"] is True
    assert draft.convert(norm_before_residual=False).config["norm_before_residual"] is False


def test_a_residual_that_the_config_repeats_passes(eagle3: Make) -> None:
    assert eagle3(norm_before_residual=False, norm_output=False).convert(validate=True).findings == {}


def test_a_residual_that_is_neither_true_nor_false_is_refused(eagle3: Make) -> None:
    assert "norm_before_residual" in eagle3(norm_before_residual="no").refusal()["config-key-invalid"].message


@pytest.mark.parametrize("said", [True, "yes"])
def test_a_normed_state_that_the_authors_code_never_feeds_back_is_refused(eagle3: Make, said: object) -> None:
    assert "norm_output" in eagle3(norm_output=said).refusal()["flag-contradicts-dialect"].message


def test_both_spellings_of_the_first_layer_in_one_file_are_refused(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors["layers.0.hidden_norm.weight"] = draft.tensors["midlayer.hidden_norm.weight"].clone()
    assert draft.refusal()["two-spellings"].where == "layers.0.hidden_norm.weight"


def test_a_second_layer_is_kept(eagle3: Make) -> None:
    converted = eagle3(layers=2).convert(validate=True)
    assert converted.layer["num_hidden_layers"] == 2
    assert "layers.1.input_layernorm.weight" in converted.tensors


def test_query_and_key_norms_make_it_a_qwen3_layer(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors |= {f"midlayer.self_attn.{part}_norm.weight": torch.ones(6) for part in "qk"}
    converted = draft.convert(validate=True)
    assert converted.layer["model_type"] == "qwen3"
    assert "layers.0.self_attn.q_norm.weight" in converted.tensors


@pytest.mark.parametrize("missing", "qk")
def test_one_of_the_two_norms_is_refused(eagle3: Make, missing: str) -> None:
    draft = eagle3()
    other = "qk".replace(missing, "")
    draft.tensors[f"midlayer.self_attn.{other}_norm.weight"] = torch.ones(6)
    assert f"{missing}_norm" in draft.refusal()["missing-tensor"].where


def test_query_and_key_norms_in_only_one_of_two_layers_are_refused(eagle3: Make) -> None:
    draft = eagle3(layers=2)
    draft.tensors |= {f"midlayer.self_attn.{part}_norm.weight": torch.ones(6) for part in "qk"}
    assert draft.refusal()["missing-tensor"].where.startswith("layers.1.")


def test_a_model_type_of_qwen3_without_the_norms_is_written_as_llama(eagle3: Make) -> None:
    assert eagle3(model_type="qwen3").convert().layer["model_type"] == "llama"


def test_a_fusion_bias_is_refused_because_no_server_has_it(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors["fc.bias"] = torch.ones(16)
    assert draft.refusal()["refused-tensor"].where == "fc.bias"


def biased(layer: str) -> dict[str, torch.Tensor]:
    return SIZES.qkv_bias(layer) | random({f"{layer}self_attn.o_proj.bias": (16,)})


def test_attention_biases_of_all_layers_are_kept(eagle3: Make) -> None:
    draft = eagle3(layers=2, num_hidden_layers=2, attention_bias=True)
    draft.tensors |= biased("midlayer.") | biased("layers.1.")
    converted = draft.convert(validate=True)
    assert converted.layer["attention_bias"] is True
    again = convert(converted.output, converted.output.with_name("again")).output
    assert (again / "model.safetensors").read_bytes() == (converted.output / "model.safetensors").read_bytes()
    assert json.loads((again / "config.json").read_text()) == converted.config


def test_attention_biases_without_one_on_the_output_are_refused(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors |= SIZES.qkv_bias("midlayer.")
    assert draft.refusal()["unclaimed-tensor"].where.startswith("midlayer.self_attn.")


def test_some_of_the_attention_biases_are_refused(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors |= biased("midlayer.")
    del draft.tensors["midlayer.self_attn.k_proj.bias"]
    assert draft.refusal()["missing-tensor"].where.endswith("k_proj.bias")


def test_attention_biases_in_one_of_two_layers_are_refused(eagle3: Make) -> None:
    draft = eagle3(layers=2, num_hidden_layers=2)
    draft.tensors |= biased("midlayer.")
    assert draft.refusal()["missing-tensor"].where.startswith("layers.1.self_attn.")


def test_tied_embeddings_in_the_source_are_never_tied_in_the_output(eagle3: Make) -> None:
    converted = eagle3(tie_word_embeddings=True).convert()
    assert converted.config["tie_word_embeddings"] is False
    assert converted.layer["tie_word_embeddings"] is False


def test_an_old_layer_count_of_the_verifier_is_corrected(eagle3: Make) -> None:
    assert eagle3(num_hidden_layers=40).convert().layer["num_hidden_layers"] == 1


def test_the_head_size_is_that_of_the_tensors(eagle3: Make) -> None:
    assert eagle3().convert().layer["head_dim"] == 6


def test_an_embedding_of_its_own_is_kept(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors["embed_tokens.weight"] = torch.full((32, 16), 0.125)
    assert torch.equal(load_draft(draft.convert().output).embed_tokens.weight, torch.full((32, 16), 0.125))


def test_a_verifier_wider_than_the_draft_needs_its_width_in_the_config(eagle3: Make, make_verifier: Make) -> None:
    draft = eagle3(target_hidden_size=24)
    draft.tensors["fc.weight"] = torch.ones(16, 72)
    draft.tensors["embed_tokens.weight"] = torch.ones(32, 16)
    converted = draft.convert(verifier=make_verifier("wide", hidden_size=24), validate=True)
    assert converted.config["target_hidden_size"] == 24
    assert "hidden_size" in draft.refusal()["verifier-mismatch"].message


def test_tables_that_the_verifier_has_in_another_width_must_be_in_the_file(eagle3: Make, make_verifier: Make) -> None:
    draft = eagle3(target_hidden_size=24, draft_vocab_size=32)
    draft.tensors |= {"fc.weight": torch.ones(16, 72), "embed_tokens.weight": torch.ones(32, 16)}
    wide = make_verifier("wide", hidden_size=24)
    del draft.tensors["lm_head.weight"], draft.tensors["d2t"], draft.tensors["t2d"]
    assert draft.refusal(verifier=wide)["missing-tensor"].where == "lm_head.weight"
    draft.tensors["lm_head.weight"] = draft.tensors.pop("embed_tokens.weight")
    assert draft.refusal(verifier=wide)["missing-tensor"].where == "embed_tokens.weight"


def test_a_head_that_was_tied_to_an_embedding_of_its_own_is_not_the_verifiers(eagle3: Make) -> None:
    draft = eagle3(tie_word_embeddings=True, draft_vocab_size=32)
    del draft.tensors["lm_head.weight"], draft.tensors["d2t"], draft.tensors["t2d"]
    assert "lm_head.weight" not in draft.convert(validate=True).tensors
    draft.tensors["embed_tokens.weight"] = torch.ones(32, 16)
    assert "tied" in draft.refusal()["missing-tensor"].message


def test_the_norm_of_a_later_layer_may_be_called_hidden_norm(eagle3: Make) -> None:
    draft = eagle3(layers=2)
    draft.tensors["layers.1.hidden_norm.weight"] = norm = draft.tensors.pop("layers.1.input_layernorm.weight")
    converted = draft.convert(validate=True)
    assert torch.equal(converted.tensors["layers.1.input_layernorm.weight"], norm)


@pytest.mark.parametrize("count", [0, 2])
def test_a_later_layer_has_this_norm_once(eagle3: Make, count: int) -> None:
    draft = eagle3(layers=2)
    norm = draft.tensors.pop("layers.1.input_layernorm.weight")
    names = ("layers.1.input_layernorm.weight", "layers.1.hidden_norm.weight")[:count]
    draft.tensors |= {name: norm.clone() for name in names}
    assert {0: "missing-tensor", 2: "two-spellings"}[count] in draft.refusal()


def test_rotary_frequencies_beside_the_layers_are_dropped(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors["rotary_emb.inv_freq"] = torch.ones(3)
    assert "rotary_emb.inv_freq" in draft.convert().dropped


def test_a_float16_file_is_written_as_float16_whatever_the_config_says(eagle3: Make) -> None:
    draft = eagle3(torch_dtype="bfloat16")
    draft.tensors = {name: t.half() if t.is_floating_point() else t for name, t in draft.tensors.items()}
    converted = draft.convert()
    assert converted.config["torch_dtype"] == "float16"
    assert converted.tensors["d2t"].dtype == torch.int64
    assert "dtype-differs" in converted.findings
