"""The parts that drafts are made of: attention, feed-forward network, decoder layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spec_convert.models.errors import DraftError
from spec_convert.models.rope import Rotation, rotate
from spec_convert.unified import EagleLayerConfig, LayerConfig

# (layer, query [B, heads, T, D], key and value [B, kv heads, T, D]) -> [B, heads, T, D]. This is the one place where
# positions meet: a cache, a padding mask or the extra keys of unrolled training is another function of this type.
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
}


def causal(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Each position sees itself and all before it."""
    del layer
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


class Attention(nn.Module):
    """Attention with grouped key and value heads, on inputs of any width."""

    def __init__(self, config: LayerConfig, layer: int, *, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        bias = config.attention_bias or (isinstance(config, EagleLayerConfig) and config.qkv_bias)
        self.q_proj = nn.Linear(width, query, bias=bias)
        self.k_proj = nn.Linear(width, key, bias=bias)
        self.v_proj = nn.Linear(width, key, bias=bias)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=config.attention_bias)
        normed = config.model_type == "qwen3"
        self.q_norm = nn.RMSNorm(config.head_dim, config.rms_norm_eps) if normed else nn.Identity()
        self.k_norm = nn.RMSNorm(config.head_dim, config.rms_norm_eps) if normed else nn.Identity()

    def forward(self, x: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        query = rotate(self.q_norm(self._heads(self.q_proj(x))), rotation)
        key, value = self.keys_and_values(x, rotation)
        # Autocast on a GPU leaves norms in float32, and attention takes one type.
        mixed = attend(self.layer, query.to(value.dtype), key.to(value.dtype), value)
        merged: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(-2))
        return merged

    def keys_and_values(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """What others see of these rows [B, T, width]."""
        return rotate(self.k_norm(self._heads(self.k_proj(x))), rotation), self._heads(self.v_proj(x))

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1, self.head_dim).transpose(1, 2)


class GatedMlp(nn.Module):
    """The feed-forward network of Llama and Qwen (SwiGLU when the activation is silu)."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        if config.hidden_act not in ACTIVATIONS:
            raise DraftError(f"hidden_act {config.hidden_act!r} is unknown; known are {', '.join(ACTIVATIONS)}")
        self.activation = ACTIVATIONS[config.hidden_act]
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor = self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
        return down


class DecoderLayer(nn.Module):
    """A decoder layer with norms before its two branches. The first layer of EAGLE-1 has none before attention."""

    def __init__(self, config: LayerConfig, layer: int, *, input_norm: bool) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = nn.RMSNorm(size, eps) if input_norm else nn.Identity()
        self.self_attn = Attention(config, layer, width=size)
        self.post_attention_layernorm = nn.RMSNorm(size, eps)
        self.mlp = GatedMlp(config)

    def forward(self, x: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, attend)
        deeper: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return deeper


class FusionLayer(nn.Module):
    """The first layer of EAGLE-3: attention reads the embedding beside the state, the residual is the state alone."""

    def __init__(self, config: LayerConfig, *, norm_before_residual: bool) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.norm_before_residual = norm_before_residual
        self.input_layernorm = nn.RMSNorm(size, eps)
        self.hidden_norm = nn.RMSNorm(size, eps)
        self.self_attn = Attention(config, 0, width=2 * size)
        self.post_attention_layernorm = nn.RMSNorm(size, eps)
        self.mlp = GatedMlp(config)

    def forward(self, embedding: Tensor, state: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        normed = self.hidden_norm(state)
        both = torch.cat((self.input_layernorm(embedding), normed), dim=-1)
        residual = normed if self.norm_before_residual else state
        x = residual + self.self_attn(both, rotation, attend)
        deeper: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return deeper
