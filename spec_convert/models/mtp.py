"""The MTP draft: embedding and verifier state, each normed, fused; one layer of the verifier's own kind; its head.

The layers of Qwen3-Next and Qwen3.5: attention whose output is gated, rotation of a part of each head, norms whose
weight is the distance from one, and a feed-forward network, dense or of experts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spec_convert.models.contract import Draft, DraftStates, positions, table
from spec_convert.models.errors import DraftError
from spec_convert.models.layers import ACTIVATIONS, Attend, causal
from spec_convert.models.rope import Rope, Rotation, rotate
from spec_convert.unified import MtpConfig, MtpDenseLayerConfig, MtpLayerConfig, MtpMoeLayerConfig

ONLY_FOR_IMAGES = ("mrope_section", "mrope_interleaved")  # of text, all three positions of a token are one


class MtpDraft(Draft):
    def __init__(self, config: MtpConfig, *, embed_tokens: Tensor, lm_head: Tensor) -> None:
        """Embedding and head are always the verifier's."""
        super().__init__()
        self.config = config
        layer = config.transformer_layer_config
        self.embed_tokens = table(layer.vocab_size, layer.hidden_size, embed_tokens, name="embedding")
        self.rope = _rope(layer)
        self.mtp_layers = nn.ModuleList([MtpLayer(layer)])
        self.lm_head = table(layer.vocab_size, layer.hidden_size, lm_head, name="head")

    def states(
        self,
        input_ids: Tensor,
        hidden_states: Tensor,
        position_ids: Tensor | None = None,
        *,
        fed_back: bool | None = None,
        attend: Attend = causal,
    ) -> DraftStates:
        del fed_back  # the verifier's normed state and the draft's own enter by the same door
        width, size = hidden_states.shape[-1], self.config.transformer_layer_config.hidden_size
        if width != size:
            raise ValueError(f"hidden_states are {width} wide, the draft takes {size}")
        embedding = F.embedding(input_ids, self.embed_tokens.weight)
        rotation = self.rope(positions(input_ids, position_ids))
        state: Tensor = self.mtp_layers[0](embedding, hidden_states, rotation, attend)
        return DraftStates(state, state)


class MtpLayer(nn.Module):
    def __init__(self, config: MtpLayerConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.token_layernorm = _norm(config)
        self.hidden_layernorm = _norm(config)
        self.input_proj = nn.Linear(2 * size, size, bias=False)
        self.input_layernorm = _norm(config)
        self.self_attn = GatedAttention(config)
        self.post_attention_layernorm = _norm(config)
        self.mlp = _feed_forward(config)
        self.final_layernorm = _norm(config)

    def forward(self, embedding: Tensor, state: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        x = self.input_proj(torch.cat((self.token_layernorm(embedding), self.hidden_layernorm(state)), dim=-1))
        x = x + self.self_attn(self.input_layernorm(x), rotation, attend)
        normed: Tensor = self.final_layernorm(x + self.mlp(self.post_attention_layernorm(x)))
        return normed


class OffsetNorm(nn.Module):
    """An RMSNorm that multiplies by 1 + weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, 1 + self.weight.float(), self.eps).to(x.dtype)


class GatedAttention(nn.Module):
    """Every head of the query comes with a gate for its output; only the first channels of a head are rotated."""

    def __init__(self, config: MtpLayerConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, 2 * query, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)
        self.q_norm = OffsetNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = OffsetNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, x: Tensor, rotation: Rotation, attend: Attend) -> Tensor:
        query, gate = self._heads(self.q_proj(x), 2 * self.head_dim).chunk(2, dim=-1)
        key, value = (self._heads(project(x), self.head_dim) for project in (self.k_proj, self.v_proj))
        query, key = _rotate_part(self.q_norm(query), rotation), _rotate_part(self.k_norm(key), rotation)
        mixed = attend(0, query.to(value.dtype), key.to(value.dtype), value) * gate.sigmoid()
        merged: Tensor = self.o_proj(mixed.transpose(1, 2).flatten(-2))
        return merged

    @staticmethod
    def _heads(x: Tensor, width: int) -> Tensor:
        return x.reshape(*x.shape[:2], -1, width).transpose(1, 2)


def _rotate_part(heads: Tensor, rotation: Rotation) -> Tensor:
    turned = 2 * rotation[0].shape[-1]
    return torch.cat((rotate(heads[..., :turned], rotation), heads[..., turned:]), dim=-1)


class GatedLinear(nn.Module):
    """The dense feed-forward network, and the one that all tokens share beside the experts."""

    def __init__(self, config: MtpLayerConfig, inner: int) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.hidden_act]
        self.gate_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.down_proj = nn.Linear(inner, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        down: Tensor = self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
        return down


class Experts(nn.Module):
    """The weights of all experts in two tensors, an expert a slab."""

    def __init__(self, config: MtpMoeLayerConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.hidden_act]
        count, inner, size = config.num_experts, config.moe_intermediate_size, config.hidden_size
        self.gate_up_proj = nn.Parameter(torch.zeros(count, 2 * inner, size))
        self.down_proj = nn.Parameter(torch.zeros(count, size, inner))

    def forward(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """``tokens`` [N, H]; ``weights`` [N, experts], zero for those that a token does not go to."""
        out = torch.zeros_like(tokens)
        for expert in weights.any(dim=0).nonzero()[:, 0].tolist():
            rows = weights[:, expert].nonzero()[:, 0]
            gate, up = F.linear(tokens[rows], self.gate_up_proj[expert]).chunk(2, dim=-1)
            made = F.linear(self.activation(gate) * up, self.down_proj[expert])
            out[rows] += made * weights[rows, expert, None]
        return out


class MixtureOfExperts(nn.Module):
    def __init__(self, config: MtpMoeLayerConfig) -> None:
        super().__init__()
        self.active, self.normed = config.num_experts_per_tok, config.norm_topk_prob
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = Experts(config)
        self.shared_expert = GatedLinear(config, config.shared_expert_intermediate_size)
        self.shared_expert_gate = nn.Linear(config.hidden_size, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)
        chosen, places = self.gate(tokens).float().softmax(dim=-1).topk(self.active, dim=-1)
        if self.normed:
            chosen = chosen / chosen.sum(dim=-1, keepdim=True)
        weights = tokens.new_zeros(len(tokens), self.gate.out_features).scatter(1, places, chosen.to(tokens.dtype))
        shared = self.shared_expert_gate(tokens).sigmoid() * self.shared_expert(tokens)
        both: Tensor = self.experts(tokens, weights) + shared
        return both.view_as(x)


def _norm(config: MtpLayerConfig) -> OffsetNorm:
    return OffsetNorm(config.hidden_size, config.rms_norm_eps)


def _feed_forward(config: MtpLayerConfig) -> nn.Module:
    if config.hidden_act not in ACTIVATIONS:
        raise DraftError(f"hidden_act {config.hidden_act!r} is unknown; known are {', '.join(ACTIVATIONS)}")
    if isinstance(config, MtpMoeLayerConfig):
        return MixtureOfExperts(config)
    assert isinstance(config, MtpDenseLayerConfig)
    return GatedLinear(config, config.intermediate_size)


def _rope(config: MtpLayerConfig) -> Rope:
    told = {key: value for key, value in config.rope_parameters.items() if key not in ONLY_FOR_IMAGES}
    theta, part = told.pop("rope_theta"), told.pop("partial_rotary_factor")
    return Rope(int(config.head_dim * part), theta, config.max_position_embeddings, told)
