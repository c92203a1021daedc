"""Tiny targets with an MTP head in the layout that their publishers use, in several files where those do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from spec_convert.example import Sizes, shapes_of
from spec_convert.plugins import mtp as plugin
from spec_convert.plugins.families import llama, mtp

from ..tiny import random

SIZES = Sizes()
EXPERTS, ACTIVE, EXPERT, SHARED = 4, 2, 12, 20
OF_EXPERTS = {
    "num_experts": EXPERTS, "num_experts_per_tok": ACTIVE, "moe_intermediate_size": EXPERT,
    "shared_expert_intermediate_size": SHARED,
}  # fmt: skip


def _shapes(feed_forward: Any) -> dict[str, tuple[int, ...]]:
    return shapes_of(mtp.native(feed_forward), SIZES, experts=EXPERTS, expert=EXPERT, shared=SHARED)


def rest(prefix: str = "model.") -> dict[str, Tensor]:
    """What stays in the target: its tables and two layers, of which names suffice."""
    table = (SIZES.vocabulary, SIZES.hidden)
    shapes = {f"{prefix}embed_tokens.weight": table, "lm_head.weight": table, f"{prefix}norm.weight": (SIZES.hidden,)}
    return random(shapes | {f"{prefix}layers.{n}.mlp.experts.0.up_proj.weight": (8, SIZES.hidden) for n in range(2)})


def qwen3_next() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The experts one by one; rope in the older keys; every fourth layer of full attention."""
    said = plugin.config_of(SIZES, model_type="qwen3_next", architectures=["Qwen3NextForCausalLM"], **OF_EXPERTS)
    gone = ("rope_parameters", "layer_types", "mtp_num_hidden_layers")
    config = {key: value for key, value in said.items() if key not in gone} | {
        "rope_theta": 1e7, "rope_scaling": None, "partial_rotary_factor": 0.5, "full_attention_interval": 4,
        "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
    }  # fmt: skip
    return config, rest() | random(_shapes(mtp.ROUTER + mtp.single_experts(EXPERTS)))


def qwen3_5() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Dense, with the facts of the language model nested."""
    config = {"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5"}
    nested = plugin.config_of(SIZES)
    return config | {"text_config": nested}, rest("model.language_model.") | random(_shapes(llama.MLP))


def qwen3_5_moe() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The experts in two tensors already."""
    config = {"architectures": ["Qwen3_5MoeForConditionalGeneration"], "model_type": "qwen3_5_moe"}
    nested = plugin.config_of(SIZES, model_type="qwen3_5_moe_text", **OF_EXPERTS)
    nested.pop("intermediate_size")
    tensors = rest("model.language_model.") | random(_shapes(mtp.ROUTER + mtp.STACKED_EXPERTS))
    return config | {"text_config": nested}, tensors


def _llama(architecture: str, **more: Any) -> dict[str, Any]:
    return {"architectures": [architecture], "hidden_size": SIZES.hidden, "num_hidden_layers": 2, **more}


def deepseek() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The head is the layer after the last, with tables and a head of its own."""
    wide, table = (SIZES.hidden, 2 * SIZES.hidden), (SIZES.vocabulary, SIZES.hidden)
    shapes = {"eh_proj": wide, "enorm": (SIZES.hidden,), "hnorm": (SIZES.hidden,), "embed_tokens": table}
    shapes |= {"shared_head.head": table, "shared_head.norm": (SIZES.hidden,), "self_attn.kv_a_proj_with_mqa": wide}
    head = random({f"model.layers.2.{name}.weight": shape for name, shape in shapes.items()})
    return _llama("DeepseekV3ForCausalLM", num_nextn_predict_layers=1, model_type="deepseek_v3"), rest() | head


def mimo() -> tuple[dict[str, Any], dict[str, Tensor]]:
    shapes = {"input_proj.weight": (SIZES.hidden, 2 * SIZES.hidden), "self_attn.q_proj.bias": (24,)}
    norms = ("token_layernorm", "hidden_layernorm", "final_layernorm", "input_layernorm")
    shapes |= {f"{name}.weight": (SIZES.hidden,) for name in norms}
    head = random({f"model.mtp_layers.0.{name}": shape for name, shape in shapes.items()})
    return _llama("MiMoForCausalLM", num_nextn_predict_layers=1, model_type="mimo"), rest() | head


def ernie() -> tuple[dict[str, Any], dict[str, Tensor]]:
    shapes = {"mtp_linear_proj.0.weight": (SIZES.hidden, 2 * SIZES.hidden), "mtp_emb_norm.0.weight": (SIZES.hidden,)}
    shapes |= {"mtp_hidden_norm.0.weight": (SIZES.hidden,), "mtp_block.0.input_layernorm.weight": (SIZES.hidden,)}
    head = random({f"model.{name}": shape for name, shape in shapes.items()})
    return _llama("Ernie4_5_MoeForCausalLM", model_type="ernie4_5_moe"), rest() | head


EXTRACTED = {"qwen3-next": qwen3_next, "qwen3.5": qwen3_5, "qwen3.5-moe": qwen3_5_moe}
REFUSED = {"deepseek": deepseek, "mimo": mimo, "ernie": ernie}


def write_target(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, files: int = 3) -> Path:
    """In ``files`` shards, the tensors dealt out one by one, so that the head lies in all but the first of them."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer.json").write_text("{}")
    names = [f"model-{n:05}-of-{files:05}.safetensors" for n in range(1, files + 1)]
    places = {name: names[_shard(name, number, files)] for number, name in enumerate(tensors)}
    for file in names:
        save_file({name: tensors[name] for name in tensors if places[name] == file}, folder / file, {"format": "pt"})
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def _shard(name: str, number: int, files: int) -> int:
    return 1 + number % (files - 1) if "mtp" in name or name.startswith("model.norm") else 0


def half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
