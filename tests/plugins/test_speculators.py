"""Directories that are already unified: read back unchanged, completed where servers would guess, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert import convert
from spec_convert.errors import UsageError

Make = Callable[..., Any]
FIXTURES = Path(__file__).parents[1] / "goldens" / "fixtures"
CASES = sorted(case.name for case in FIXTURES.iterdir() if case.is_dir())


@pytest.fixture
def unified(eagle3: Make) -> Callable[..., Any]:
    """A unified EAGLE-3 directory that a test may damage: `unified(layer={"model_type": ...}, fc_norm=...)`."""

    def make(*, layer: dict[str, Any] | None = None, **changes: Any) -> Any:
        draft = eagle3()
        converted = draft.convert()
        draft.config, draft.tensors = converted.config, converted.tensors
        kept = {key: value for key, value in (converted.layer | (layer or {})).items() if value is not ...}
        return draft.set(**{"transformer_layer_config": kept} | changes)

    return make


@pytest.mark.parametrize("name", CASES)
def test_converting_a_converted_draft_changes_no_byte(name: str, tmp_path: Path) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    convert(FIXTURES / name / "checkpoint", once, verifier=FIXTURES / name / "verifier", speculative_tokens=5)
    assert convert(once, twice).format == "speculators"
    for file in ("config.json", "model.safetensors"):
        assert (once / file).read_bytes() == (twice / file).read_bytes(), file


def test_the_verifier_is_the_one_that_the_directory_names(unified: Make, verifier: Path) -> None:
    again = unified().convert(verifier=None)
    assert again.config["speculators_config"]["verifier"]["name_or_path"] == str(verifier)


@pytest.mark.parametrize("absent", [None, ..., []])
def test_layer_ids_that_it_leaves_to_the_server_are_written(unified: Make, absent: object) -> None:
    draft = unified(eagle_aux_hidden_state_layer_ids=absent)
    assert draft.convert().config["eagle_aux_hidden_state_layer_ids"] == [2, 4, 5]


def test_its_layer_ids_are_boundary_ids(unified: Make) -> None:
    draft = unified(eagle_aux_hidden_state_layer_ids=[1, 3, 7])
    assert draft.convert().config["eagle_aux_hidden_state_layer_ids"] == [1, 3, 7]


@pytest.mark.parametrize(("key", "value"), [("num_aux_hidden_states", 3), ("model_type", "llama"), ("head_dim", 6)])
def test_what_the_layer_config_leaves_out_is_completed(unified: Make, key: str, value: object) -> None:
    assert unified(layer={key: ...}).convert().layer[key] == value


def test_a_number_of_states_that_contradicts_fc_is_corrected(unified: Make) -> None:
    assert unified(layer={"num_aux_hidden_states": 5}).convert().layer["num_aux_hidden_states"] == 3


def test_missing_marks_are_rebuilt(unified: Make) -> None:
    draft = unified()
    marks = draft.tensors.pop("t2d")
    assert torch.equal(draft.convert().tensors["t2d"], marks)


def test_a_map_at_full_vocabulary_is_dropped(unified: Make) -> None:
    draft = unified(draft_vocab_size=32)
    draft.tensors["lm_head.weight"] = torch.ones(32, 16)
    draft.tensors |= {"d2t": torch.zeros(32, dtype=torch.int64), "t2d": torch.ones(32, dtype=torch.bool)}
    assert set(draft.convert().dropped) == {"d2t", "t2d"}


def test_a_missing_norm_before_residual_is_refused(unified: Make) -> None:
    assert "norm-before-residual-unknown" in unified(norm_before_residual=...).refusal()


def test_the_flag_completes_a_missing_norm_before_residual(unified: Make) -> None:
    assert unified(norm_before_residual=...).convert(norm_before_residual=True).config["norm_before_residual"] is True


@pytest.mark.parametrize("key", ["norm_before_residual", "norm_output"])
def test_its_own_flags_are_kept(unified: Make, key: str) -> None:
    assert unified(**{key: True}).convert(validate=True).config[key] is True


def test_a_top_level_model_type_is_removed_because_vllm_would_read_it(unified: Make) -> None:
    assert "model_type" not in unified(model_type="eagle3").convert().config


@pytest.mark.parametrize("kind", ["medusa9000", "", 3, ["eagle3"]])
def test_an_unknown_type_is_refused_with_the_known_ones(unified: Make, kind: object) -> None:
    refused = unified(speculators_model_type=kind).refusal()["unknown-unified-type"]
    assert "eagle, eagle3, eagle_mlp" in refused.hint


def test_a_directory_without_a_layer_config_is_refused(unified: Make) -> None:
    assert "transformer_layer_config" in unified(transformer_layer_config=...).refusal()["config-key-missing"].message


@pytest.mark.parametrize("key", ["fc_norm", "norm_before_fc"])
def test_norms_that_it_promises_and_lacks_are_refused(unified: Make, key: str) -> None:
    assert f"`{key}` is true" in unified(**{key: True}).refusal()["missing-tensor"].message


def test_a_norm_that_it_denies_and_holds_is_refused(unified: Make) -> None:
    draft = unified(norm_before_fc=False)
    draft.tensors["input_norm.weight"] = torch.ones(48)
    assert "norm_before_fc" in draft.refusal()["config-contradicts-tensors"].message


@pytest.mark.parametrize("key", ["attention_bias", "mlp_bias"])
def test_biases_that_its_layers_promise_and_lack_are_refused(unified: Make, key: str) -> None:
    assert key in unified(layer={key: True}).refusal()["missing-tensor"].message


def test_norms_of_queries_and_keys_that_its_layer_type_promises_are_not_left_to_the_server(unified: Make) -> None:
    assert "qwen3" in unified(layer={"model_type": "qwen3"}).refusal()["missing-tensor"].message


@pytest.mark.parametrize("flags", [{"layernorms": False}, {"fusion_bias": True}])
def test_flags_of_eagle1_mean_nothing_for_a_unified_eagle3(unified: Make, flags: dict[str, bool]) -> None:
    assert "`eagle3`" in unified().refusal(**flags)["flag-not-heeded"].message


@pytest.mark.parametrize("methods", [None, [], {}, [{}], ["greedy"], 5])
def test_a_directory_that_says_nothing_of_its_tokens_proposes_three(unified: Make, methods: object) -> None:
    draft = unified()
    draft.config["speculators_config"]["proposal_methods"] = methods
    assert draft.convert().config["speculators_config"]["proposal_methods"][0]["speculative_tokens"] == 3


@pytest.mark.parametrize("tokens", ["many", -1, 2.5])
def test_a_number_of_tokens_that_is_none_is_refused(unified: Make, tokens: object) -> None:
    draft = unified()
    draft.config["speculators_config"]["proposal_methods"] = [{"speculative_tokens": tokens}]
    assert draft.refusal()["config-invalid"].where.endswith("speculative_tokens")


def test_the_number_of_tokens_that_it_proposes_is_kept(unified: Make) -> None:
    draft = unified()
    draft.config["speculators_config"]["proposal_methods"][0]["speculative_tokens"] = 7
    assert draft.convert().config["speculators_config"]["proposal_methods"][0]["speculative_tokens"] == 7


@pytest.fixture
def unified_eagle(eagle: Make) -> Callable[..., Any]:
    """A unified EAGLE-1 directory with fusion bias and layernorms."""

    def make(**changes: Any) -> Any:
        draft = eagle()
        norms = ("embed_layernorm.weight", "hidden_layernorm.weight", "lm_head_layernorm.weight")
        draft.tensors |= {name: torch.ones(16) for name in (*norms, "fc.bias")}
        converted = draft.convert()
        draft.config, draft.tensors = converted.config, converted.tensors
        return draft.set(**changes)

    return make


def test_a_fusion_bias_that_it_promises_and_lacks_is_refused(unified_eagle: Make) -> None:
    draft = unified_eagle()
    del draft.tensors["fc.bias"]
    assert "fusion_bias" in draft.refusal()["missing-tensor"].message


def test_attention_biases_that_it_promises_and_lacks_are_refused(unified_eagle: Make) -> None:
    draft = unified_eagle()
    draft.config["transformer_layer_config"]["qkv_bias"] = True
    assert "qkv_bias" in draft.refusal()["missing-tensor"].message


def test_a_fusion_bias_that_it_denies_and_holds_is_refused(unified_eagle: Make) -> None:
    assert "fusion_bias" in unified_eagle(fusion_bias=False).refusal()["config-contradicts-tensors"].message


def test_attention_biases_that_it_denies_and_holds_are_refused(unified_eagle: Make) -> None:
    draft = unified_eagle()
    rows = {"q": 24, "k": 12, "v": 12}
    draft.tensors |= {f"layers.0.self_attn.{part}_proj.bias": torch.ones(count) for part, count in rows.items()}
    assert "qkv_bias" in draft.refusal()["config-contradicts-tensors"].message


def test_a_norm_of_ones_is_no_placeholder_in_a_unified_directory(unified_eagle: Make) -> None:
    draft = unified_eagle()
    draft.tensors["layers.0.input_layernorm.weight"] = torch.ones(16)
    assert draft.refusal()["refused-tensor"].where == "layers.0.input_layernorm.weight"


def test_no_layernorms_drops_them_with_a_warning(unified_eagle: Make) -> None:
    converted = unified_eagle().convert(layernorms=False, validate=True)
    assert set(converted.dropped.values()) == {"--no-layernorms"}
    assert "flag-contradicts-tensors" in converted.findings
    assert (converted.config["layernorms"], converted.config["layernorm_position"]) == (False, None)


def test_no_layernorms_drops_those_behind_the_fusion_too(unified_eagle: Make) -> None:
    draft = unified_eagle(layernorm_position="after_fusion").rename("hidden_layernorm.", "layers.0.input_layernorm.")
    assert "layers.0.input_layernorm.weight" in draft.convert().tensors
    assert len(draft.convert(layernorms=False, validate=True).dropped) == 3


def test_layernorms_are_not_made_up_on_request(unified_eagle: Make) -> None:
    draft = unified_eagle(layernorms=False, layernorm_position=None)
    for name in ("embed_layernorm.weight", "hidden_layernorm.weight", "lm_head_layernorm.weight"):
        del draft.tensors[name]
    assert "flag-without-tensors" in draft.refusal(layernorms=True)


def test_flags_of_eagle3_mean_nothing_for_a_unified_eagle1(unified_eagle: Make) -> None:
    refused = unified_eagle().refusal(aux_layer_ids=[1, 2, 3])["flag-not-heeded"]
    assert refused.where == "--aux-layer-ids"


@pytest.mark.parametrize("position", ["in_the_middle", 7, ["before_fusion"], {}])
def test_a_place_of_the_layernorms_that_nobody_knows_is_refused(unified_eagle: Make, position: object) -> None:
    assert "layernorm_position" in unified_eagle(layernorm_position=position).refusal()["config-key-invalid"].message


def test_layernorms_without_a_place_are_refused(unified_eagle: Make) -> None:
    assert "layernorm_position" in unified_eagle(layernorm_position=None).refusal()["config-key-missing"].message


@pytest.mark.parametrize("reference", [None, {}, {"name_or_path": ""}, {"name_or_path": None}, "somebody/something"])
def test_a_directory_that_names_no_verifier_asks_for_one(unified: Make, reference: object) -> None:
    draft = unified()
    draft.config["speculators_config"]["verifier"] = reference
    with pytest.raises(UsageError, match="which model it was trained for") as refused:
        draft.convert(verifier=None)
    assert "--verifier" in refused.value.hint
