"""The home-made Qwen3 draft: its tensors in the trainer's two spellings, and what its code computes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .tiny import Sizes, random

EPSILON = 0.01


def config(sizes: Sizes, *, layers: int = 1, target: int = 0, **more: Any) -> dict[str, Any]:
    """config.json as the trainer writes it."""
    return {
        "architectures": ["Eagle3Qwen3ForCausalLM"], "vocab_size": sizes.vocabulary, "hidden_size": sizes.hidden,
        "num_hidden_layers": layers, "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.kv_heads,
        "intermediate_size": sizes.inner, "rms_norm_eps": EPSILON, "target_hidden_size": target or sizes.hidden,
        "num_target_layers": 3, "target_layers": [1, 3, 5], "norm_before_residual": False,
    } | more  # fmt: skip


def raw(sizes: Sizes, *, layers: int = 1, target: int = 0) -> dict[str, Tensor]:
    """The tensors as the trainer holds them: queries, keys and values in one, gate and up in one."""
    hidden, rows = sizes.hidden, (sizes.heads + 2 * sizes.kv_heads) * sizes.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens": (sizes.vocabulary, hidden), "fc": (hidden, 3 * (target or hidden)), "norm": (hidden,),
        "lm_head": (sizes.vocabulary, hidden), "hidden_state_projection": (hidden, hidden),
    }  # fmt: skip
    for number in range(layers):
        layer = {
            "qkv_proj": (rows, hidden if number else 2 * hidden), "o_proj": (hidden, hidden),
            "q_norm": (sizes.head_dim,), "k_norm": (sizes.head_dim,),
            "mlp_gate_up": (2 * sizes.inner, hidden), "mlp_down": (hidden, sizes.inner),
        } | dict.fromkeys(("input_layernorm", "hidden_norm", "post_attention_layernorm"), (hidden,))  # fmt: skip
        shapes |= {f"layers.{number}.{name}": shape for name, shape in layer.items()}
    return random({f"{name}.weight": shape for name, shape in shapes.items()})


def saved(tensors: Mapping[str, Tensor], sizes: Sizes) -> dict[str, Tensor]:
    """The same as the trainer saves them: cut, and under everybody's names, with every row where it was."""
    made: dict[str, Tensor] = {}
    parts = [sizes.heads * sizes.head_dim, *[sizes.kv_heads * sizes.head_dim] * 2]
    names = {"o_proj": "self_attn.o_proj", "mlp_down": "mlp.down_proj"}
    names |= {norm: f"self_attn.{norm}" for norm in ("q_norm", "k_norm")}
    for name, tensor in tensors.items():
        layer, _, part = name.removesuffix(".weight").rpartition(".")
        if part == "qkv_proj":
            cut = zip("qkv", tensor.split(parts), strict=True)
            made |= {f"{layer}.self_attn.{one}_proj.weight": rows.clone() for one, rows in cut}
        elif part == "mlp_gate_up":
            cut = zip(("gate", "up"), tensor.chunk(2), strict=True)
            made |= {f"{layer}.mlp.{one}_proj.weight": rows.clone() for one, rows in cut}
        else:
            made[f"{layer}.{names.get(part, part)}.weight" if layer else name] = tensor
    return made


def first_step(tensors: Mapping[str, Tensor], facts: Mapping[str, Any], ids: Tensor, states: Tensor) -> Tensor:
    """The trainer's code on whole texts, with the mask that its texts of one token never needed: logits [B, T, V]."""
    weight = {name.removesuffix(".weight"): tensor for name, tensor in tensors.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], weight[name], facts["rms_norm_eps"])

    x, embedding = states @ weight["fc"].T, weight["embed_tokens"][ids]
    for number in range(facts["num_hidden_layers"]):
        layer = f"layers.{number}."
        if number == 0:
            normed = norm(x, "layers.0.hidden_norm")
            residual = normed if facts["norm_before_residual"] else x
            reads = torch.cat((norm(embedding, "layers.0.input_layernorm"), normed), dim=-1)
        else:
            residual, reads = x, norm(x, f"{layer}input_layernorm")
        x = residual + _attention(reads, layer, weight, facts, norm)
        gate, up = (norm(x, f"{layer}post_attention_layernorm") @ weight[f"{layer}mlp_gate_up"].T).chunk(2, dim=-1)
        x = x + (F.silu(gate) * up) @ weight[f"{layer}mlp_down"].T
    return norm(x, "norm") @ weight["lm_head"].T


def _attention(reads: Tensor, layer: str, weight: Mapping[str, Tensor], facts: Mapping[str, Any], norm: Any) -> Tensor:
    heads, kv_heads = facts["num_attention_heads"], facts["num_key_value_heads"]
    width = facts["hidden_size"] // heads
    rows = reads @ weight[f"{layer}qkv_proj"].T
    query, key, value = rows.split([heads * width, kv_heads * width, kv_heads * width], dim=-1)
    query, key, value = (part.unflatten(-1, (-1, width)).transpose(1, 2) for part in (query, key, value))
    query, key = _rotated(norm(query, f"{layer}q_norm")), _rotated(norm(key, f"{layer}k_norm"))
    mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    return mixed.transpose(1, 2).flatten(-2) @ weight[f"{layer}o_proj"].T


def _rotated(heads: Tensor) -> Tensor:
    """Each pair of neighbours turned by its angle."""
    width = heads.shape[-1]
    frequencies = 1.0 / 1e6 ** (torch.arange(0, width, 2) / width)
    angles = torch.arange(heads.shape[-2])[:, None] * frequencies
    turn = torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(torch.view_as_complex(heads.unflatten(-1, (-1, 2)).contiguous()) * turn).flatten(-2)
