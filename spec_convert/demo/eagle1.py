"""The demo's EAGLE-1 draft: fresh for a verifier, and on disk as EAGLE's authors publish theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from spec_convert.models.draft import VerifierTensors, build_draft
from spec_convert.models.eagle import EagleDraft
from spec_convert.models.load import shared_tensors
from spec_convert.unified import UNIFIED, EagleConfig
from spec_convert.verifier import Verifier


def shared_tables(verifier: Verifier) -> VerifierTensors:
    """The verifier's embedding and head, which the draft does not train."""
    return shared_tensors(verifier, ("embed_tokens", "lm_head"), torch.float32)


def fresh_draft(verifier: Verifier, shared: VerifierTensors) -> EagleDraft:
    """An untrained draft, always the same: the layer at random, the fusion passing the verifier's state through."""
    assert shared.lm_head is not None, "a verifier always has a head"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draft = EagleDraft(draft_config(verifier), embed_tokens=shared.embed_tokens, lm_head=shared.lm_head)
    with torch.no_grad():
        draft.fc.weight.mul_(0.1)
        draft.fc.weight[:, draft.fc.out_features :] += torch.eye(draft.fc.out_features)
    return draft


def save_as_published(draft: EagleDraft, verifier: Verifier, folder: Path) -> None:
    """`pytorch_model.bin` in float16, with a copy of the verifier's embedding, and the authors' config.json."""
    tensors = {"embed_tokens.weight": draft.embed_tokens.weight} | draft.state_dict()
    torch.save({name: tensor.half() for name, tensor in tensors.items()}, folder / "pytorch_model.bin")
    config = authors_config(draft.config, verifier)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def published_draft(folder: Path, verifier: Verifier, shared: VerifierTensors) -> EagleDraft:
    """The draft that `save_as_published` wrote, read back without the hub: what a conversion must not change."""
    stored = torch.load(folder / "pytorch_model.bin", weights_only=True)
    tensors = {name: tensor.float() for name, tensor in stored.items()}
    draft = build_draft(draft_config(verifier), tensors, shared).eval()
    assert isinstance(draft, EagleDraft)
    return draft


def draft_config(verifier: Verifier) -> EagleConfig:
    """One decoder layer of the verifier's sizes. What is around it is for servers."""
    facts = verifier.text_config
    layer = {
        key: facts[key]
        for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
                    "vocab_size", "hidden_act", "rms_norm_eps", "max_position_embeddings")
    }  # fmt: skip
    constants = {
        "model_type": "llama", "num_hidden_layers": 1, "rope_scaling": None, "attention_bias": False,
        "mlp_bias": False, "tie_word_embeddings": False, "qkv_bias": False,
    }  # fmt: skip
    method = {"proposal_type": "greedy", "speculative_tokens": 3, "verifier_accept_k": 1, "accept_tolerance": 0.0}
    config = {
        "architectures": ["EagleSpeculator"], "speculators_model_type": "eagle", "speculators_version": "0.9.0",
        "tie_word_embeddings": False, "torch_dtype": "float32", "fusion_bias": False, "layernorms": False,
        "layernorm_position": None, "transformer_layer_architecture": "LlamaDecoderLayer",
        "transformer_layer_config": layer | constants | {"rope_theta": facts["rope_parameters"]["rope_theta"]},
        "speculators_config": {
            "algorithm": "eagle", "default_proposal_method": "greedy", "proposal_methods": [method],
            "verifier": {"name_or_path": verifier.name, "architectures": verifier.architectures},
        },
    }  # fmt: skip
    model = UNIFIED.validate_python(config)
    assert isinstance(model, EagleConfig)
    return model


def authors_config(config: EagleConfig, verifier: Verifier) -> dict[str, Any]:
    """A Llama's config with the authors' own key: `bias`, whether the fusion has one."""
    layer = config.transformer_layer_config
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "bos_token_id": verifier.text_config.get("bos_token_id"),
        "eos_token_id": verifier.text_config.get("eos_token_id"),
        "hidden_act": layer.hidden_act,
        "hidden_size": layer.hidden_size,
        "intermediate_size": layer.intermediate_size,
        "max_position_embeddings": layer.max_position_embeddings,
        "num_attention_heads": layer.num_attention_heads,
        "num_key_value_heads": layer.num_key_value_heads,
        "num_hidden_layers": layer.num_hidden_layers,
        "rms_norm_eps": layer.rms_norm_eps,
        "rope_theta": layer.rope_theta,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "vocab_size": layer.vocab_size,
        "bias": config.fusion_bias,
    }
