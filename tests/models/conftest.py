"""Small drafts made on the spot: configs with any field changed, and random tensors that fit them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from spec_convert.models.dflash import DFlashDraft
from spec_convert.models.draft import Config, Draft, VerifierTensors, build_draft
from spec_convert.models.dspark import DSparkDraft
from spec_convert.models.eagle import EagleDraft
from spec_convert.models.eagle3 import Eagle3Draft
from spec_convert.models.mlp import MlpDraft
from spec_convert.models.peagle import PEagleDraft
from spec_convert.unified import (
    UNIFIED,
    DFlashConfig,
    DSparkConfig,
    Eagle3Config,
    EagleConfig,
    EagleMlpConfig,
    PEagleConfig,
)

VOCABULARY, DRAFT_VOCABULARY, SIZE = 32, 20, 16
LAYER = {
    "model_type": "llama", "hidden_size": SIZE, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": VOCABULARY, "hidden_act": "silu",
    "rms_norm_eps": 1e-5, "max_position_embeddings": 64, "rope_theta": 10000.0, "rope_scaling": None,
    "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
}  # fmt: skip
METHOD = {"proposal_type": "greedy", "speculative_tokens": 3, "verifier_accept_k": 1, "accept_tolerance": 0.0}
ENVELOPE = {
    "architectures": ["Draft"], "speculators_version": "0.9.0", "tie_word_embeddings": False, "torch_dtype": "float32",
    "speculators_config": {
        "algorithm": "eagle", "default_proposal_method": "greedy", "proposal_methods": [METHOD],
        "verifier": {"name_or_path": "nobody/nothing", "architectures": ["LlamaForCausalLM"]},
    },
}  # fmt: skip


def _eagle_config(*, layer: dict[str, Any] | None = None, **changes: Any) -> EagleConfig:
    fields = {
        "speculators_model_type": "eagle", "fusion_bias": False, "layernorms": False, "layernorm_position": None,
        "transformer_layer_architecture": "LlamaDecoderLayer",
        "transformer_layer_config": LAYER | {"qkv_bias": False} | (layer or {}),
    }  # fmt: skip
    return UNIFIED.validate_python(ENVELOPE | fields | changes)


def _eagle3_config(*, layer: dict[str, Any] | None = None, aux: int = 3, **changes: Any) -> Eagle3Config:
    fields = {
        "speculators_model_type": "eagle3", "draft_vocab_size": DRAFT_VOCABULARY, "norm_before_residual": False,
        "norm_before_fc": False, "fc_norm": False, "norm_output": False, "target_hidden_size": None,
        "eagle_aux_hidden_state_layer_ids": list(range(1, aux + 1)), "embed_requires_grad": False,
        "transformer_layer_config": LAYER | {"num_aux_hidden_states": aux} | (layer or {}),
    }  # fmt: skip
    return UNIFIED.validate_python(ENVELOPE | fields | changes)


def _peagle_config(**changes: Any) -> PEagleConfig:
    plain = _eagle3_config(**{"layer": {"num_hidden_layers": 2}, "embed_requires_grad": True} | changes).model_dump()
    return UNIFIED.validate_python(plain | {"speculators_model_type": "peagle", "mask_token_id": 7})


def _mlp_config(**changes: Any) -> EagleMlpConfig:
    fields = {
        "speculators_model_type": "eagle_mlp", "hidden_size": SIZE, "vocab_size": VOCABULARY, "mlp_layers": 2,
        "hidden_act": "relu", "layer_norm_eps": 1e-5,
    }  # fmt: skip
    return UNIFIED.validate_python(ENVELOPE | fields | changes)


@pytest.fixture
def eagle_config() -> Callable[..., EagleConfig]:
    return _eagle_config


@pytest.fixture
def eagle3_config() -> Callable[..., Eagle3Config]:
    return _eagle3_config


@pytest.fixture
def peagle_config() -> Callable[..., PEagleConfig]:
    return _peagle_config


@pytest.fixture
def mlp_config() -> Callable[..., EagleMlpConfig]:
    return _mlp_config


@pytest.fixture
def verifier() -> VerifierTensors:
    torch.manual_seed(1)
    return VerifierTensors(embed_tokens=torch.randn(VOCABULARY, SIZE), lm_head=torch.randn(VOCABULARY, SIZE))


@pytest.fixture
def tensors_of(verifier: VerifierTensors) -> Callable[[Config], dict[str, Tensor]]:
    """Random tensors of a config. The embedding, and the head over a full vocabulary, are the verifier's."""

    def make(config: Config) -> dict[str, Tensor]:
        torch.manual_seed(0)
        tensors = {name: tensor.clone() for name, tensor in _empty(config, verifier).state_dict().items()}
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name] = torch.randn_like(tensor) * 0.3
        if "d2t" in tensors:
            said = torch.randperm(VOCABULARY)[:DRAFT_VOCABULARY]
            tensors["d2t"] = said - torch.arange(DRAFT_VOCABULARY)
            tensors["t2d"][said] = True
        return tensors

    return make


@pytest.fixture
def draft_of(verifier: VerifierTensors, tensors_of: Callable[[Config], dict[str, Tensor]]) -> Callable[[Config], Draft]:
    return lambda config: build_draft(config, tensors_of(config), verifier)


def _empty(config: Config, verifier: VerifierTensors) -> Draft:
    if isinstance(config, EagleMlpConfig):
        return MlpDraft(config)
    assert verifier.embed_tokens is not None
    assert verifier.lm_head is not None
    if isinstance(config, EagleConfig):
        return EagleDraft(config, embed_tokens=verifier.embed_tokens, lm_head=verifier.lm_head)
    head = verifier.lm_head if config.draft_vocab_size == VOCABULARY else None
    if isinstance(config, DSparkConfig):
        return DSparkDraft(config, embed_tokens=verifier.embed_tokens, lm_head=head)
    if isinstance(config, DFlashConfig):
        return DFlashDraft(config, embed_tokens=verifier.embed_tokens, lm_head=head)
    if isinstance(config, PEagleConfig):
        return PEagleDraft(config, embed_tokens=verifier.embed_tokens, lm_head=head)
    return Eagle3Draft(config, embed_tokens=verifier.embed_tokens, lm_head=head)
