"""Decoder layers against transformers' own, and the one place where positions meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, Qwen3Config
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from spec_convert.models.draft import Config, Draft
from spec_convert.models.errors import DraftError
from spec_convert.models.layers import Attention, DecoderLayer, causal
from spec_convert.models.rope import Rope
from spec_convert.unified import EagleConfig

Configs = Callable[..., EagleConfig]
THEIRS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaDecoderLayer),
    "qwen3": (Qwen3Config, Qwen3DecoderLayer),
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 1},
        {"model_type": "qwen3", "head_dim": 8, "hidden_act": "gelu"},
    ],
    ids=str,
)
def test_a_layer_is_the_layer_of_transformers(eagle_config: Configs, changes: dict[str, Any]) -> None:
    config = eagle_config(layer=changes).transformer_layer_config
    make_config, make_layer = THEIRS[config.model_type]
    settings = make_config(**config.model_dump(exclude={"model_type", "rope_scaling", "qkv_bias"}))
    settings._attn_implementation = "sdpa"
    theirs, ours = make_layer(settings, 0), DecoderLayer(config, 0, input_norm=True)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(theirs.state_dict())
    x, position_ids = torch.randn(2, 5, 16), torch.arange(5)[None]
    expected = theirs(x, position_embeddings=LlamaRotaryEmbedding(settings)(x, position_ids))
    torch.testing.assert_close(ours(x, Rope.of(config)(position_ids), causal), expected, rtol=0, atol=1e-5)


def test_attention_is_given_one_type_where_autocast_leaves_norms_in_float32(
    eagle_config: Configs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does on a GPU, and not on a CPU."""
    config = eagle_config(layer={"model_type": "qwen3", "head_dim": 8}).transformer_layer_config
    norm, seen = torch.nn.RMSNorm.forward, []
    monkeypatch.setattr(torch.nn.RMSNorm, "forward", lambda self, x: norm(self, x.float()))

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        seen.extend(part.dtype for part in (query, key, value))
        return causal(layer, query, key, value)

    with torch.autocast("cpu", torch.bfloat16):
        DecoderLayer(config, 0, input_norm=True)(torch.randn(2, 5, 16), Rope.of(config)(torch.arange(5)[None]), attend)
    assert seen == [torch.bfloat16] * 3


def test_the_biases_of_qwen2_drafts_are_on_query_key_and_value_only(eagle_config: Configs) -> None:
    names = Attention(eagle_config(layer={"qkv_bias": True}).transformer_layer_config, 0, width=16).state_dict()
    assert {name for name in names if name.endswith("bias")} == {"q_proj.bias", "k_proj.bias", "v_proj.bias"}


def test_an_unknown_activation_is_refused(eagle_config: Configs) -> None:
    with pytest.raises(DraftError, match="hidden_act 'swish7' is unknown"):
        DecoderLayer(eagle_config(layer={"hidden_act": "swish7"}).transformer_layer_config, 0, input_norm=True)


def test_a_cache_gives_the_same_as_the_whole_sequence(
    eagle_config: Configs, draft_of: Callable[[Config], Draft]
) -> None:
    draft = draft_of(eagle_config(layer={"num_hidden_layers": 2}))
    ids, states = torch.randint(32, (2, 6)), torch.randn(2, 6, 16)
    attend = Cache()
    steps = [draft(ids[:, i : i + 1], states[:, i : i + 1], torch.tensor([[i]]), attend=attend) for i in range(6)]
    expected = draft(ids, states).hidden_states
    torch.testing.assert_close(torch.cat([step.hidden_states for step in steps], dim=1), expected)


class Cache:
    """The simplest that can be: one position a call, all earlier keys and values kept."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if layer in self.seen:
            key, value = (torch.cat(pair, dim=2) for pair in zip(self.seen[layer], (key, value), strict=True))
        self.seen[layer] = (key, value)
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
