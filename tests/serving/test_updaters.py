"""vLLM's model config of a draft holds all that the draft's function depends on, taken from the unified config."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert.serving.updaters import Updater, update_eagle, update_eagle_mlp

NORMS = ("embed_layernorm.weight", "hidden_layernorm.weight", "lm_head_layernorm.weight")


def model_config(updater: Updater, config: dict[str, Any]) -> dict[str, Any]:
    """What vLLM would make the draft's model config of."""
    written: dict[str, Any] = json.loads(json.dumps(config.get("transformer_layer_config", {})))
    updater.update(config, written)
    return written


def test_a_draft_with_a_fusion_bias_is_served_by_our_model(eagle: Callable[..., Any]) -> None:
    draft = eagle()
    draft.tensors["fc.bias"] = torch.ones(16)
    config = draft.convert().config

    served = model_config(update_eagle, config)

    assert served["architectures"] == ["UnifiedEagleForCausalLM"]
    assert (served["fusion_bias"], served["layernorms"], served["layernorm_position"]) == (True, False, None)


def test_the_place_of_the_layernorms_reaches_the_model(eagle: Callable[..., Any]) -> None:
    draft = eagle()
    draft.tensors |= {name: torch.ones(16) for name in NORMS}

    served = model_config(update_eagle, draft.convert().config)

    assert (served["fusion_bias"], served["layernorms"]) == (False, True)
    assert served["layernorm_position"] == "before_fusion"


def test_the_decoder_layers_stay_as_they_were(eagle: Callable[..., Any]) -> None:
    draft = eagle(layers=2)
    draft.tensors["fc.bias"] = torch.ones(16)
    config = draft.convert().config

    assert model_config(update_eagle, config).items() >= config["transformer_layer_config"].items()


def test_an_mlp_draft_is_served_by_our_model_at_any_length(mlp: Callable[..., Any]) -> None:
    served = model_config(update_eagle_mlp, mlp().convert().config)

    assert served["architectures"] == ["UnifiedMlpForCausalLM"]
    sizes = {"hidden_size": 16, "vocab_size": 32, "mlp_layers": 2, "hidden_act": "relu", "layer_norm_eps": 1e-5}
    assert served.items() >= sizes.items()
    assert served["max_position_embeddings"] > 10_000_000


def test_a_directory_of_another_tool_is_refused_with_what_to_type(old_library: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"lacks layernorm_position.*spec-convert convert SOURCE OUTPUT"):
        model_config(update_eagle, old_library().config)


def test_the_plugin_costs_a_vllm_process_no_heavy_import() -> None:
    code = "import sys, spec_convert.serving.plugin; print({'torch', 'vllm', 'pydantic', 'numpy'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert printed.strip() == "set()"
