"""Tiny verifiers, and a draft of every dialect in its authors' layout, with head sizes that vLLM has CPU kernels for.

Everything that a converter could lose weighs something: no norm is all ones, no bias zero, the draft's epsilon and
rotary base are not the verifier's, and no two tensors are alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import home_made
from ..tiny import Sizes, behind_model, random, renamed, write

VOCABULARY = 512
SIZES = Sizes(hidden=64, inner=160, heads=4, kv_heads=1, head_dim=32, vocabulary=VOCABULARY, draft_vocabulary=100)
NARROW = replace(SIZES, hidden=48)
HOME_MADE = replace(SIZES, heads=2)  # as wide as its heads together
EPSILON = 0.01  # large enough to be seen in the logits
LLAMA3 = {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
KNOWN = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(0))[:100].tolist()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A draft in the layout in which it is published, the kind of its verifier, and flags of `convert`."""

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    verifier: str = "llama"
    flags: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        return write(folder, self.config, self.tensors)


def write_verifier(folder: Path, kind: str) -> Path:
    """A whole model of this type, eight layers deep, random in every weight."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=8,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        vocab_size=VOCABULARY,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": 300000.0},
        tie_word_embeddings=False,
    )
    model = AutoModelForCausalLM.from_config(config)
    values = random({name: tuple(weight.shape) for name, weight in model.named_parameters()})
    model.load_state_dict(values)
    model.save_pretrained(folder)
    return folder


def eagle(tensors: Mapping[str, Tensor], **config: Any) -> Case:
    """EAGLE-1; SafeAILab's configs for Llama-3 give a rotary base."""
    return Case(config=SIZES.llama(rms_norm_eps=EPSILON, rope_theta=500000.0) | config, tensors=tensors)


def vllm_v0(tensors: Mapping[str, Tensor], **config: Any) -> Case:
    """The same for vLLM's first engine, with the copy of the verifier's head that it wanted."""
    head = random({"lm_head.weight": (VOCABULARY, SIZES.hidden)})
    return Case(config={"model_type": "eagle", "model": eagle({}).config, **config}, tensors={**tensors, **head})


def old_library(tensors: Mapping[str, Tensor], **config: Any) -> Case:
    """The `eagle` type of speculators 0.6 and before."""
    layer = SIZES.llama(rms_norm_eps=EPSILON, rope_theta=500000.0)
    names = renamed(renamed(tensors, "fc.", "fusion_fc."), "layers.0.", "transformer.")
    return Case(config=SIZES.old_library(layer) | config, tensors=names)


def eagle3(tensors: Mapping[str, Tensor], *, sizes: Sizes = SIZES, flags: tuple[str, ...] = (), **config: Any) -> Case:
    """SafeAILab's EAGLE-3: nothing is said of the rotary base or the layers."""
    own = {"draft_vocab_size": sizes.draft_vocabulary}
    return Case(config=sizes.llama(rms_norm_eps=EPSILON) | own | config, tensors=tensors, flags=flags)


def specforge(
    tensors: Mapping[str, Tensor], *, aux: tuple[int, ...] = (), verifier: str = "llama", **config: Any
) -> Case:
    """SpecForge's EAGLE-3: layer ids that count outputs, an explicit head size, a rotary base."""
    said = {"eagle_config": {"eagle_aux_hidden_state_layer_ids": list(aux)}} if aux else {}
    own = {"architectures": ["LlamaForCausalLMEagle3"], "head_dim": SIZES.head_dim, "rope_theta": 1e6} | said | config
    return replace(eagle3(tensors, **own), verifier=verifier)


def nemo(tensors: Mapping[str, Tensor], **config: Any) -> Case:
    """NeMo Automodel's: the backbone behind `model.`, and the config of its Qwen3 verifier with a few other keys."""
    rope = {"rope_type": "default", "rope_theta": 1e6}
    own = {
        "architectures": ["LlamaEagle3DraftModel"], "model_type": "qwen3", "num_hidden_layers": 8,
        "head_dim": SIZES.head_dim, "rope_parameters": rope, "layer_types": ["full_attention"] * 8,
        "use_sliding_window": False, "target_hidden_size": SIZES.hidden, "parallel_drafting": False,
    }  # fmt: skip
    return replace(eagle3(behind_model(tensors), **own | config), verifier="qwen3")


def unified_eagle3(tensors: Mapping[str, Tensor], **config: Any) -> Case:
    """EAGLE-3 as the speculators library trains it: already unified, with facts that no other dialect has."""
    layer = SIZES.llama(rms_norm_eps=EPSILON, rope_theta=10000.0, head_dim=SIZES.head_dim)
    own = {
        "architectures": ["Eagle3Speculator"], "speculators_model_type": "eagle3", "draft_vocab_size": 100,
        "eagle_aux_hidden_state_layer_ids": [2, 4, 5], "norm_before_residual": False, "transformer_layer_config": layer,
    }  # fmt: skip
    return Case(config=own | config, tensors=tensors)


def unified_peagle(tensors: Mapping[str, Tensor], *, verifier: str = "llama", **config: Any) -> Case:
    """P-EAGLE in the same library, with an embedding of its own; the last token is the mask."""
    own = {"architectures": ["PEagleSpeculator"], "speculators_model_type": "peagle", "mask_token_id": VOCABULARY - 1}
    return replace(unified_eagle3(with_mask(tensors), **own, **config), verifier=verifier)


def specforge_peagle(tensors: Mapping[str, Tensor], **config: Any) -> Case:
    """SpecForge's P-EAGLE, to whose config somebody has added the mask token."""
    own = {"architectures": ["PEagleDraftModel"], "mask_token_id": VOCABULARY - 1, "norm_before_residual": False}
    return specforge(with_mask(tensors), aux=(1, 4, 6), **own | config)


def with_mask(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With what P-EAGLE holds besides: the state behind masks, and an embedding of the draft's own."""
    return {**tensors} | SIZES.embedding() | random({"mask_hidden": (1, 1, 3 * SIZES.hidden)})


def dflash(tensors: Mapping[str, Tensor], *, layers: int = 2, **config: Any) -> Case:
    """DFlash as its authors publish it, with blocks of four rows."""
    own = {
        "architectures": ["DFlashDraftModel"], "model_type": "qwen3", "block_size": 4, "num_hidden_layers": layers,
        "head_dim": SIZES.head_dim, "rope_theta": 1e6, "num_target_layers": 8,
        "dflash_config": {"mask_token_id": VOCABULARY - 1, "target_layer_ids": [1, 3, 4]},
    }  # fmt: skip
    return Case(config=SIZES.llama(rms_norm_eps=EPSILON) | own | config, tensors=tensors)


EAGLE, EAGLE3 = SIZES.eagle(), SIZES.eagle3()
IN_LAYERS = SIZES.eagle3(prefix="layers.0.")
QK_NORMS = random({f"midlayer.self_attn.{norm}.weight": (SIZES.head_dim,) for norm in ("q_norm", "k_norm")})
FUSION_BIAS = random({"fc.bias": (SIZES.hidden,)})

CASES = {
    "eagle": eagle(EAGLE),
    "eagle, fusion bias and own embeddings": eagle(EAGLE | FUSION_BIAS | SIZES.embedding(), bias=True),
    "eagle, two layers and own embeddings": eagle(SIZES.eagle(layers=2) | SIZES.embedding(), num_hidden_layers=2),
    "eagle, query, key and value biases": replace(
        eagle(EAGLE | SIZES.qkv_bias("layers.0."), architectures=["Qwen2ForCausalLM"], model_type="qwen2"),
        verifier="qwen2",
    ),
    "eagle-vllm-v0, fusion bias": vllm_v0(
        renamed(EAGLE, "layers.", "model.model.layers.") | FUSION_BIAS, eagle_fc_bias=True
    ),
    "hass": eagle(EAGLE | FUSION_BIAS, bias=False),
    "eagle-layernorms": eagle(
        EAGLE | SIZES.norms("embed_layernorm", "hidden_layernorm", "lm_head_layernorm"), rope_scaling=LLAMA3
    ),
    "speculators-eagle": old_library(EAGLE),
    "speculators-eagle, fusion bias and layernorms": old_library(
        EAGLE | FUSION_BIAS | SIZES.norms("embedding_layernorm", "layers.0.input_layernorm", "pre_lm_head_layernorm"),
        fusion_bias=True,
        layernorms=True,
    ),
    "eagle-mlp": Case(config=SIZES.mlp_config(), tensors=SIZES.mlp()),
    "eagle3": eagle3(EAGLE3),
    "eagle3, narrow with own embeddings": eagle3(
        NARROW.eagle3(target=SIZES.hidden) | NARROW.embedding(), sizes=NARROW, target_hidden_size=SIZES.hidden
    ),
    "eagle3, in several files": eagle3(EAGLE3, flags=("--max-shard-size", "100KB")),
    "eagle3, own embeddings": eagle3(EAGLE3 | SIZES.embedding()),
    "eagle3, the verifier's head": eagle3(SIZES.eagle3_body(), draft_vocab_size=VOCABULARY),
    "eagle3, two layers": eagle3(SIZES.eagle3(layers=2), num_hidden_layers=2),
    "eagle3, rope scaling of Llama 3.1": eagle3(EAGLE3, rope_scaling=LLAMA3),
    "eagle3, YaRN": eagle3(EAGLE3, rope_scaling=YARN),
    "eagle3, linear rope scaling by a whole number": eagle3(EAGLE3, rope_scaling={"type": "linear", "factor": 4}),
    "eagle3, residual after the norm": eagle3(IN_LAYERS, flags=("--norm-before-residual", "--aux-layer-ids", "3,5,6")),
    "eagle3-shared-head": eagle3(
        SIZES.eagle3_body() | SIZES.embedding("lm_head.weight") | {"d2t": torch.arange(VOCABULARY)},
        architectures=["LlamaForCausalLMEagle3SharedHead"],
        draft_vocab_size=VOCABULARY,
    ),
    "eagle3-modelopt": specforge(
        SIZES.eagle3_body("layers.0.")
        | {name: tensor for name, tensor in SIZES.reduced_head(KNOWN).items() if name != "t2d"},
        eagle_config={"eagle_aux_hidden_state_layer_ids": [1, 3, 6], "use_last_layernorm": True},
    ),
    "eagle3-modelopt, several layers": specforge(
        renamed(renamed(SIZES.eagle3(layers=2), "midlayer.", "midlayer.0."), "layers.1.", "midlayer.1."),
        architectures=["LlamaForCausalLMEagle3Deep"],
    ),
    "eagle3-modelopt, norm before fc, ids that count inputs": replace(
        specforge(
            EAGLE3 | random({"input_norm.weight": (3 * SIZES.hidden,)}),
            eagle_config={"eagle_aux_hidden_state_layer_ids": [2, 4, 5], "use_last_layernorm": True},
        ),
        flags=("--aux-layer-convention", "boundary"),
    ),
    "eagle3-angelslim": specforge(EAGLE3 | SIZES.embedding(), aux=(1, 4, 6), tie_word_embeddings=True),
    "eagle3-torchspec": replace(
        specforge(EAGLE3 | SIZES.embedding(), aux=(1, 4, 6), _torchspec_version="0.1.0"),
        flags=("--aux-layer-convention", "output"),
    ),
    "eagle3-research": eagle3(SIZES.research(), draft_vocab_size=None, flags=("--aux-layer-ids", "3,5,6")),
    "eagle3-specforge": specforge(EAGLE3, aux=(1, 4, 6)),
    "eagle3-specforge, four states": specforge(SIZES.eagle3(states=4), aux=(0, 2, 4, 6)),
    "eagle3-specforge, one state": specforge(SIZES.eagle3(states=1), aux=(4,)),
    "eagle3-specforge, norm per state (EAGLE-3.1)": specforge(
        EAGLE3 | SIZES.norms("fc_norm.0", "fc_norm.1", "fc_norm.2"), fc_norm=True, norm_output=True
    ),
    "eagle3-specforge, norm before fc": specforge(
        EAGLE3 | random({"input_norm.weight": (3 * SIZES.hidden,)}), norm_before_fc=True
    ),
    "eagle3-specforge, Qwen3 layers": specforge(EAGLE3 | QK_NORMS, verifier="qwen3"),
    "eagle3-nemo, EAGLE-3.1 with attention biases": nemo(
        IN_LAYERS
        | SIZES.embedding()
        | SIZES.norms("fc_norm.0", "fc_norm.1", "fc_norm.2")
        | SIZES.qkv_bias("layers.0.")
        | random({"layers.0.self_attn.o_proj.bias": (SIZES.hidden,)}),
        attention_bias=True,
        fc_norm=True,
        norm_output=True,
    ),
    "eagle3-qwen3": Case(
        config=home_made.config(HOME_MADE, layers=2),
        tensors=home_made.raw(HOME_MADE, layers=2),
        verifier="qwen3",
        flags=("--aux-layer-ids", "2,4,6"),
    ),
    "speculators, normed output": unified_eagle3(IN_LAYERS, norm_output=True, fc_norm=False),
}
