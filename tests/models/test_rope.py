"""Our rotations against transformers', and scalings that must be refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from spec_convert.models.rope import Rope, rotate
from spec_convert.unified import EagleConfig

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"factor": 4.0, "original_max_position_embeddings": 64}
SCALINGS = [
    None,
    {"rope_type": "default", "rope_theta": 10000.0},
    {"type": "linear", "factor": 2.0},
    {"rope_type": "dynamic", "factor": 3.0},
    {"rope_type": "llama3"} | LLAMA3,
    {"type": "yarn"} | YARN,
    {"rope_type": "yarn"} | YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "truncate": False},
    {"rope_type": "yarn"} | YARN | {"mscale": 0.707, "mscale_all_dim": 1.2},
    {"rope_type": "yarn"} | YARN | {"attention_factor": 0.9},
]
Configs = Callable[..., EagleConfig]


def rope(eagle_config: Configs, scaling: dict[str, Any] | None) -> Rope:
    layer = {"head_dim": 32, "max_position_embeddings": 256, "rope_scaling": scaling}
    return Rope.of(eagle_config(layer=layer).transformer_layer_config)


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
@pytest.mark.parametrize("length", [200, 700], ids=["short", "beyond the trained length"])
def test_heads_turn_as_in_transformers(eagle_config: Configs, scaling: dict[str, Any] | None, length: int) -> None:
    theirs = LlamaRotaryEmbedding(
        LlamaConfig(
            hidden_size=128, num_attention_heads=4, head_dim=32, max_position_embeddings=256,
            rope_parameters={"rope_theta": 10000.0} | (scaling or {"rope_type": "default"}),
        )
    )  # fmt: skip
    torch.manual_seed(0)
    heads, position_ids = torch.randn(2, 4, length, 32), torch.arange(length)[None]
    expected, _ = apply_rotary_pos_emb(heads, heads, *theirs(heads, position_ids))
    torch.testing.assert_close(rotate(heads, rope(eagle_config, scaling)(position_ids)), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("scaling", "reason"),
    [
        ({"type": "mrope", "mrope_section": [16, 24, 24]}, "'mrope' is unknown"),
        ({"rope_type": "longrope"}, "'longrope' is unknown"),
        ({"factor": 2.0}, "must name one type"),
        ({"type": "linear", "rope_type": "dynamic", "factor": 2.0}, "must name one type"),
        ({"rope_type": "linear"}, "'factor'"),
        ({"rope_type": "yarn", "factor": 2.0}, "'original_max_position_embeddings'"),
        ({"rope_type": "llama3", "mrope_section": [1]} | LLAMA3, "'mrope_section'"),
        ({"rope_type": "default", "rope_theta": 5.0}, "contradicts rope_theta"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "a part of each head"),
    ],
)
def test_a_scaling_that_we_cannot_compute_is_refused(
    eagle_config: Configs, scaling: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        rope(eagle_config, scaling)
