"""The dialects of EAGLE-3: layer ids that count outputs, norms before fc, maps without marks, a shared head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert import detect

Make = Callable[..., Any]
# What makes a draft of each dialect out of the authors' config, and what `convert` must be told of it.
DIALECTS: dict[str, dict[str, Any]] = {
    "eagle3": {},
    "eagle3-angelslim": {"architectures": ["Eagle3LlamaForCausalLM"], "rope_theta": 10000.0},
    "eagle3-modelopt": {
        "architectures": ["LlamaForCausalLMEagle3"],
        "eagle_config": {"use_last_layernorm": True},
    },
    "eagle3-research": {"prefix": "layers.0.", "norm_before_residual": True},
    "eagle3-specforge": {"architectures": ["LlamaForCausalLMEagle3"]},
    "eagle3-torchspec": {"architectures": ["LlamaForCausalLMEagle3"], "_torchspec_version": "0.1.0"},
}
EVERY_DIALECT = pytest.mark.parametrize("dialect", DIALECTS)
NAMED = ("aux_norm_low.weight", "aux_norm_mid.weight", "aux_norm_high.weight")


def per_state(draft: Any, count: int = 3) -> Any:
    draft.tensors |= {f"fc_norm.{n}.weight": torch.full((16,), n + 1.0) for n in range(count)}
    return draft


def test_specforge_may_call_the_layer_layers_0(specforge: Make) -> None:
    assert specforge(prefix="layers.0.").convert().config["norm_before_residual"] is False


@pytest.mark.parametrize("said", [{}, {"norm_output": True}])
def test_specforges_norm_output_is_not_the_servers(specforge: Make, said: dict[str, bool]) -> None:
    assert specforge(**said).convert().config["norm_output"] is False


def test_specforge_without_a_norm_before_the_head_is_refused(specforge: Make) -> None:
    assert "no norm before the head" in specforge(norm_output=False).refusal()["not-representable"].message


def test_a_norm_for_each_verifier_state_is_kept(specforge: Make) -> None:
    converted = per_state(specforge(fc_norm=True)).convert(validate=True)
    assert converted.config["fc_norm"] is True
    assert [converted.tensors[f"fc_norm.{n}.weight"][0] for n in range(3)] == [1.0, 2.0, 3.0]


def test_the_first_spelling_of_these_norms_keeps_their_order(specforge: Make) -> None:
    draft = specforge(use_aux_norm=True)
    draft.tensors |= {name: torch.full((16,), n + 1.0) for n, name in enumerate(NAMED)}
    written = draft.convert(validate=True).tensors
    assert [written[f"fc_norm.{n}.weight"][0] for n in range(3)] == [1.0, 2.0, 3.0]


def test_both_spellings_at_once_are_refused(specforge: Make) -> None:
    draft = per_state(specforge())
    draft.tensors["aux_norm_low.weight"] = torch.ones(16)
    assert draft.refusal()["unclaimed-tensor"].where == "aux_norm_low.weight"


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_state_without_its_norm_is_refused(specforge: Make, missing: int) -> None:
    draft = per_state(specforge())
    del draft.tensors[f"fc_norm.{missing}.weight"]
    assert draft.refusal()["missing-tensor"].where == f"fc_norm.{missing}.weight"


def test_a_norm_without_its_state_is_refused(specforge: Make) -> None:
    assert per_state(specforge(), count=4).refusal()["unclaimed-tensor"].where == "fc_norm.3.weight"


@pytest.mark.parametrize("key", ["fc_norm", "use_aux_norm"])
def test_norms_that_the_config_promises_and_the_file_lacks_are_refused(specforge: Make, key: str) -> None:
    assert f"`{key}` is true" in specforge(**{key: True}).refusal()["missing-tensor"].message


@pytest.mark.parametrize("key", ["fc_norm", "use_aux_norm"])
def test_norms_that_the_config_denies_and_the_file_holds_are_refused(specforge: Make, key: str) -> None:
    assert f"`{key}` is false" in per_state(specforge(**{key: False})).refusal()["config-contradicts-tensors"].message


def test_one_norm_before_fc_is_kept(specforge: Make) -> None:
    draft = specforge()
    draft.tensors["input_norm.weight"] = torch.ones(48)
    assert draft.convert(validate=True).config["norm_before_fc"] is True


def test_a_norm_before_fc_beside_norms_per_state_is_refused(specforge: Make) -> None:
    draft = per_state(specforge())
    draft.tensors["input_norm.weight"] = torch.ones(48)
    assert "exclude each other" in draft.refusal()["config-invalid"].message


def test_norms_before_fc_are_refused_where_the_dialect_has_none(eagle3: Make) -> None:
    assert "fc_norm" in per_state(eagle3()).refusal()["unclaimed-tensor"].where


def test_a_map_without_marks_is_modelopts(specforge: Make) -> None:
    draft = specforge()
    del draft.tensors["t2d"]
    converted = draft.convert(validate=True)
    assert converted.conversion.format == "eagle3-modelopt"
    assert converted.config["eagle_aux_hidden_state_layer_ids"] == [2, 4, 5]


def test_modelopts_newer_files_may_have_been_trained_with_another_norm(specforge: Make) -> None:
    draft = specforge(prefix="layers.0.", eagle_config={"use_last_layernorm": True})
    converted = draft.convert()
    assert converted.findings["trainer-differs-from-servers"].level == "warning"
    assert converted.conversion.format == "eagle3-modelopt"


def test_modelopts_older_files_were_not(specforge: Make) -> None:
    converted = specforge(eagle_config={"use_last_layernorm": True}).convert()
    assert "trainer-differs-from-servers" not in converted.findings


def test_the_absolute_identity_of_a_shared_head_is_dropped(eagle3: Make) -> None:
    draft = eagle3(architectures=["LlamaForCausalLMEagle3SharedHead"], draft_vocab_size=32)
    draft.tensors["lm_head.weight"] = torch.ones(32, 16)
    draft.tensors |= {"d2t": torch.arange(32), "t2d": torch.ones(32, dtype=torch.bool)}
    converted = draft.convert(validate=True)
    assert converted.conversion.format == "eagle3-shared-head"
    assert set(converted.dropped) == {"d2t", "t2d"}


def test_an_architecture_that_nobody_knows_is_refused_with_the_nearest(eagle3: Make) -> None:
    message = eagle3(architectures=["SomethingElse"]).refusal()["unknown-format"].message
    assert "SomethingElse" in message
    assert "eagle3" in message


def test_a_parallel_draft_is_not_taken_for_eagle3(eagle3: Make) -> None:
    draft = eagle3()
    draft.tensors["mask_hidden"] = torch.ones(1, 1, 48)
    assert detect(draft.write()).format == "p-eagle"


@EVERY_DIALECT
def test_a_second_layer_comes_through(eagle3: Make, dialect: str) -> None:
    converted = eagle3(**DIALECTS[dialect], layers=2).convert(aux_layer_ids=[2, 4, 5], validate=True)
    assert converted.conversion.format == dialect
    assert converted.layer["num_hidden_layers"] == 2
    assert "layers.1.input_layernorm.weight" in converted.tensors


@EVERY_DIALECT
@pytest.mark.parametrize("ids", [[4], [0, 2, 4, 6]])
def test_another_number_of_verifier_states_comes_through(eagle3: Make, dialect: str, ids: list[int]) -> None:
    draft = eagle3(**DIALECTS[dialect], states=len(ids))
    converted = draft.convert(aux_layer_ids=ids, validate=True)
    assert converted.config["eagle_aux_hidden_state_layer_ids"] == ids
    assert converted.layer["num_aux_hidden_states"] == len(ids)


@EVERY_DIALECT
def test_a_verifier_of_another_width_comes_through(eagle3: Make, dialect: str, make_verifier: Make) -> None:
    draft = eagle3(**DIALECTS[dialect], target_hidden_size=24)
    draft.tensors |= {"fc.weight": torch.randn(16, 72), "embed_tokens.weight": torch.randn(32, 16)}
    wide = make_verifier("wide", hidden_size=24)
    converted = draft.convert(aux_layer_ids=[2, 4, 5], verifier=wide, validate=True)
    assert converted.config["target_hidden_size"] == 24
    assert torch.equal(converted.tensors["embed_tokens.weight"], draft.tensors["embed_tokens.weight"])


@EVERY_DIALECT
def test_norms_on_queries_and_keys_come_through(eagle3: Make, dialect: str) -> None:
    draft = eagle3(**DIALECTS[dialect])
    first = DIALECTS[dialect].get("prefix", "midlayer.")
    draft.tensors |= {f"{first}self_attn.{part}_norm.weight": torch.randn(6) for part in "qk"}
    converted = draft.convert(aux_layer_ids=[2, 4, 5], validate=True)
    assert converted.layer["model_type"] == "qwen3"
    for part in "qk":
        name = f"self_attn.{part}_norm.weight"
        assert torch.equal(converted.tensors[f"layers.0.{name}"], draft.tensors[f"{first}{name}"])


@EVERY_DIALECT
def test_a_fusion_bias_as_torchtune_trains_it_is_refused(eagle3: Make, dialect: str) -> None:
    draft = eagle3(**DIALECTS[dialect], attention_bias=True)
    draft.tensors["fc.bias"] = torch.ones(16)
    assert "cannot be folded" in draft.refusal(aux_layer_ids=[2, 4, 5])["refused-tensor"].message
