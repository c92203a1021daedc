"""EAGLE-3 as its authors publish it: rows, norms, layer ids and the flags that the config leaves unsaid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert import load_draft

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
    converted = eagle3(prefix="layers.0.").convert(norm_before_residual=said, validate=True)
    assert converted.config["norm_before_residual"] is said


def test_both_spellings_of_the_first_layer_in_one_file_are_refused(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors["layers.0.hidden_norm.weight"] = draft.tensors["midlayer.hidden_norm.weight"].clone()
    assert draft.refusal()["two-spellings"].where == "layers.0.hidden_norm.weight"


def test_a_second_layer_is_kept(eagle3: Make) -> None:
    converted = eagle3(layers=2).convert(validate=True)
    assert converted.layer["num_hidden_layers"] == 2
    assert "layers.1.input_layernorm.weight" in converted.tensors


def test_the_default_layer_ids_are_the_authors(eagle3: Make) -> None:
    assert eagle3().convert().config["eagle_aux_hidden_state_layer_ids"] == [2, 4, 5]


def test_default_layer_ids_that_collapse_are_refused(eagle3: Make, make_verifier: Make) -> None:
    refused = eagle3().refusal(verifier=make_verifier("shallow", num_hidden_layers=6))["aux-layer-ids"]
    assert "[2, 3, 3]" in refused.message
    assert "--aux-layer-ids" in refused.hint


def test_the_flag_gives_layer_ids_to_a_verifier_whose_default_ids_collapse(eagle3: Make, make_verifier: Make) -> None:
    shallow = make_verifier("shallow", num_hidden_layers=6)
    converted = eagle3().convert(verifier=shallow, aux_layer_ids=[1, 3, 5])
    assert converted.config["eagle_aux_hidden_state_layer_ids"] == [1, 3, 5]


def test_the_flag_wins_over_the_config(eagle3: Make) -> None:
    draft = eagle3(eagle_config={"eagle_aux_hidden_state_layer_ids": [1, 2, 3]})
    assert draft.convert(aux_layer_ids=[0, 4, 8]).config["eagle_aux_hidden_state_layer_ids"] == [0, 4, 8]


@pytest.mark.parametrize("ids", [[1], [0, 2, 4, 6]])
def test_any_number_of_verifier_states_is_fused_when_ids_are_given(eagle3: Make, ids: list[int]) -> None:
    converted = eagle3(states=len(ids), eagle_aux_hidden_state_layer_ids=ids).convert(validate=True)
    assert converted.layer["num_aux_hidden_states"] == len(ids)
    assert load_draft(converted.output).fc.in_features == len(ids) * 16


@pytest.mark.parametrize("states", [1, 2, 4])
def test_other_than_three_states_have_no_default_ids(eagle3: Make, states: int) -> None:
    assert f"fuses {states} " in eagle3(states=states).refusal()["aux-layer-ids"].message


@pytest.mark.parametrize("ids", [[2, 2, 5], [5, 4, 2], [-1, 4, 5], [2, 4, 9]])
def test_layer_ids_that_servers_would_read_otherwise_are_refused(eagle3: Make, ids: list[int]) -> None:
    draft = eagle3(eagle_aux_hidden_state_layer_ids=ids)
    assert str(ids) in draft.refusal()["aux-layer-ids"].message
    assert draft.refusal(aux_layer_ids=ids)["aux-layer-ids"].where == "--aux-layer-ids"


@pytest.mark.parametrize("ids", ["2,4,5", [2, True, 5], [2.0, 4, 5], {"0": 2}])
def test_layer_ids_that_are_no_list_of_numbers_are_refused(eagle3: Make, ids: object) -> None:
    assert "config-key-invalid" in eagle3(eagle_aux_hidden_state_layer_ids=ids).refusal()


def test_a_verifier_without_a_layer_count_is_named_as_the_cause(eagle3: Make, make_verifier: Make) -> None:
    with pytest.raises(Exception, match="num_hidden_layers"):
        eagle3().convert(verifier=make_verifier("nameless", num_hidden_layers=...))


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


def test_attention_biases_are_refused(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors["midlayer.self_attn.q_proj.bias"] = torch.ones(24)
    assert draft.refusal()["unclaimed-tensor"].where == "midlayer.self_attn.q_proj.bias"


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


def test_a_float16_file_is_written_as_float16_whatever_the_config_says(eagle3: Make) -> None:
    draft = eagle3(torch_dtype="bfloat16")
    draft.tensors = {name: t.half() if t.is_floating_point() else t for name, t in draft.tensors.items()}
    converted = draft.convert()
    assert converted.config["torch_dtype"] == "float16"
    assert converted.tensors["d2t"].dtype == torch.int64
    assert "dtype-differs" in converted.findings
