"""vLLM's own EAGLE-3 layout: recognised by what it leaves to nobody's guess, and read as vLLM reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert import detect

Make = Callable[..., Any]
KEY = "eagle_aux_hidden_state_layer_ids"


@pytest.fixture
def native(eagle3: Make) -> Make:
    said = {"architectures": ["Eagle3LlamaForCausalLM"], KEY: [1, 4, 6], "norm_before_residual": True}
    return lambda **changes: eagle3(**{"prefix": "layers.0."} | said | changes)


def qk_normed(draft: Any) -> Any:
    draft.tensors |= {f"layers.0.self_attn.{norm}.weight": torch.ones(6) for norm in ("q_norm", "k_norm")}
    return draft


def test_it_is_recognised(native: Make) -> None:
    assert detect(native().write()).format == "eagle3-vllm"


@pytest.mark.parametrize("silent", [KEY, "norm_before_residual"])
def test_a_checkpoint_that_leaves_a_guess_to_servers_is_of_another_dialect(silent: str, native: Make) -> None:
    assert set(native(**{silent: ...}).refusal()) == {"unknown-format"}


def test_ids_and_flags_mean_what_vllm_takes_them_for(native: Make) -> None:
    config = native(norm_output=True).convert(validate=True).config
    assert (config[KEY], config["norm_before_residual"], config["norm_output"]) == ([1, 4, 6], True, True)


def test_a_missing_norm_output_is_false_as_in_vllm(native: Make) -> None:
    assert native().convert().config["norm_output"] is False


def test_qwen3_layers_keep_their_norms(native: Make) -> None:
    draft = qk_normed(native(architectures=["Eagle3Qwen3ForCausalLM"], model_type="qwen3"))
    assert draft.convert(validate=True).layer["model_type"] == "qwen3"


def test_the_qwen3_class_without_norms_is_refused(native: Make) -> None:
    refusal = native(architectures=["Eagle3Qwen3ForCausalLM"]).refusal()
    assert "holds no such norms" in refusal["missing-tensor"].message


def test_the_llama_class_with_norms_is_refused(native: Make) -> None:
    assert "holds some" in qk_normed(native()).refusal()["config-contradicts-tensors"].message


def test_norms_that_it_promises_must_be_there(native: Make) -> None:
    assert "`fc_norm` is true" in native(fc_norm=True).refusal()["missing-tensor"].message
