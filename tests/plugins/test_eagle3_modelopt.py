"""ModelOpt's EAGLE-3: the spellings of its exports, drafts of several layers, the switches of its trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert import detect

Make = Callable[..., Any]
KEY = "eagle_aux_hidden_state_layer_ids"
SERVED = {
    "use_aux_hidden_state": True, "use_input_layernorm_in_first_layer": True, "use_last_layernorm": True,
    "use_mtp_layernorm": False, "next_layer_regular": True, "parallel_draft_step": 1,
}  # fmt: skip
OTHERWISE = {
    "use_aux_hidden_state": False, "use_input_layernorm_in_first_layer": False, "use_last_layernorm": False,
    "use_mtp_layernorm": True, "next_layer_regular": False, "parallel_draft_step": 4,
}  # fmt: skip


@pytest.fixture
def modelopt(specforge: Make) -> Make:
    """As ModelOpt exports: its switches, ids that count outputs, a map without marks. `switches` changes some."""

    def make(*, switches: dict[str, Any] | None = None, **changes: Any) -> Any:
        nested = SERVED | {KEY: [1, 3, 6]} | (switches or {})
        draft = specforge(eagle_config=nested, **changes)
        del draft.tensors["t2d"]
        return draft

    return make


def deep(draft: Any) -> Any:
    """The same draft as `LlamaForCausalLMEagle3Deep` spells it."""
    draft.rename("midlayer.", "midlayer.0.").rename("layers.1.", "midlayer.1.")
    draft.rename("midlayer.1.input_layernorm.", "midlayer.1.hidden_norm.")
    return draft.set(architectures=["LlamaForCausalLMEagle3Deep"])


@pytest.mark.parametrize(("prefix", "warned"), [("midlayer.", False), ("layers.0.", True)])
def test_only_the_newer_spelling_may_have_been_trained_with_another_norm(
    modelopt: Make, prefix: str, warned: bool
) -> None:
    converted = modelopt(prefix=prefix).convert(validate=True)
    assert converted.conversion.format == "eagle3-modelopt"
    assert converted.config[KEY] == [2, 4, 7]
    assert ("trainer-differs-from-servers" in converted.findings) is warned


def test_numbered_midlayers_become_layers(modelopt: Make) -> None:
    draft = deep(modelopt(layers=2))
    converted = draft.convert(validate=True)
    assert converted.conversion.format == "eagle3-modelopt"
    assert converted.layer["num_hidden_layers"] == 2
    norms = {"midlayer.0.hidden_norm": "layers.0.hidden_norm", "midlayer.1.hidden_norm": "layers.1.input_layernorm"}
    for name, target in norms.items():
        assert torch.equal(converted.tensors[f"{target}.weight"], draft.tensors[f"{name}.weight"])
    assert "trainer-differs-from-servers" not in converted.findings


def test_numbered_midlayers_are_counted_by_detect(modelopt: Make) -> None:
    assert detect(deep(modelopt(layers=2)).write()).features["layers"] == 2


def test_a_deep_draft_needs_no_other_sign_of_its_exporter(eagle3: Make) -> None:
    assert deep(eagle3(layers=2)).convert().conversion.format == "eagle3-modelopt"


def test_a_numbered_midlayer_beside_a_layer_of_its_number_is_refused(modelopt: Make) -> None:
    draft = deep(modelopt(layers=2))
    draft.tensors["layers.1.hidden_norm.weight"] = draft.tensors["midlayer.1.hidden_norm.weight"].clone()
    assert draft.refusal()["unclaimed-tensor"].where == "layers.1.hidden_norm.weight"


@pytest.mark.parametrize("key", OTHERWISE)
def test_a_switch_that_makes_another_network_is_refused(modelopt: Make, key: str) -> None:
    refused = modelopt(switches={key: OTHERWISE[key]}).refusal()["not-representable"]
    assert f"`{key}` is {OTHERWISE[key]}" in refused.message
    assert refused.where == "config.json: eagle_config"


@pytest.mark.parametrize("key", OTHERWISE)
def test_a_switch_that_is_null_or_absent_says_nothing(modelopt: Make, key: str) -> None:
    assert modelopt(switches={key: None}).convert().conversion.format == "eagle3-modelopt"


def test_a_draft_without_fusion_is_refused_for_that_and_not_for_the_tensor(modelopt: Make) -> None:
    draft = modelopt(switches={"use_aux_hidden_state": False})
    del draft.tensors["fc.weight"]
    assert {*draft.refusal()} == {"not-representable"}


def test_the_switch_is_heeded_in_other_dialects(specforge: Make) -> None:
    draft = specforge(eagle_config={"use_aux_hidden_state": False})
    assert "no `fc`" in draft.refusal()["not-representable"].message


def test_heads_for_later_tokens_are_refused(modelopt: Make) -> None:
    draft = modelopt()
    draft.tensors["parallel_draft_heads.0.medusa_layers.0.linear.weight"] = torch.ones(16, 16)
    assert "Medusa" in draft.refusal()["refused-tensor"].message


def test_the_norm_before_fc_of_gpt_oss_is_kept(modelopt: Make) -> None:
    draft = modelopt(norm_before_fc=True)
    draft.tensors["input_norm.weight"] = torch.full((48,), 0.5)
    converted = draft.convert(validate=True)
    assert converted.config["norm_before_fc"] is True
    assert torch.equal(converted.tensors["input_norm.weight"], draft.tensors["input_norm.weight"])


@pytest.mark.parametrize("said", [True, False])
def test_a_norm_before_fc_that_the_switches_contradict_is_refused(modelopt: Make, said: bool) -> None:
    draft = modelopt(switches={"norm_before_fc": said})
    if not said:
        draft.tensors["input_norm.weight"] = torch.ones(48)
    assert f"`norm_before_fc` is {str(said).lower()}" in next(iter(draft.refusal().values())).message


def test_ids_of_gpt_oss_that_count_inputs_are_settled_by_the_convention(modelopt: Make) -> None:
    draft = modelopt(switches={KEY: [4, 6, 8]})
    hint = draft.refusal()["aux-layer-ids"].hint
    assert hint == "`--aux-layer-convention boundary` (`--aux-layer-ids 4,6,8`)"
    assert draft.convert(aux_layer_convention="boundary").config[KEY] == [4, 6, 8]


def test_draft_tokens_may_be_in_order_of_frequency(modelopt: Make) -> None:
    draft = modelopt()
    kept = torch.arange(23, 3, -1)
    draft.tensors["d2t"] = kept - torch.arange(20)
    converted = draft.convert(validate=True)
    assert converted.tensors["t2d"].nonzero().flatten().tolist() == sorted(kept.tolist())
    assert "t2d-rebuilt" in converted.findings


def test_a_missing_head_is_the_verifiers_for_the_whole_vocabulary_only(modelopt: Make) -> None:
    draft = modelopt()
    del draft.tensors["lm_head.weight"]
    assert "reduced-head-missing" in draft.refusal()
    del draft.tensors["d2t"]
    whole = draft.set(draft_vocab_size=32).convert(validate=True)
    assert "lm_head.weight" not in whole.tensors
    assert whole.conversion.format == "eagle3-modelopt"
