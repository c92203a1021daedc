"""A tiny random verifier and an EAGLE-3 draft in its authors' layout, with head sizes that vLLM has CPU kernels for."""

from __future__ import annotations

import json
from pathlib import Path

import torch

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM = 64, 128, 2, 1, 32
VOCABULARY, DRAFT_VOCABULARY = 512, 96


def tiny_verifier(folder: Path) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=8,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        vocab_size=VOCABULARY,
        max_position_embeddings=128,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def tiny_draft(folder: Path) -> Path:
    """`config.json` and `pytorch_model.bin` with a draft vocabulary of its own."""
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "max_position_embeddings": 128,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 1,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": VOCABULARY,
        "draft_vocab_size": DRAFT_VOCABULARY,
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(_tensors(), folder / "pytorch_model.bin")
    return folder


def _tensors() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    shapes = {
        "midlayer.self_attn.q_proj": (HEADS * HEAD_DIM, 2 * HIDDEN),
        "midlayer.self_attn.k_proj": (KV_HEADS * HEAD_DIM, 2 * HIDDEN),
        "midlayer.self_attn.v_proj": (KV_HEADS * HEAD_DIM, 2 * HIDDEN),
        "midlayer.self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
        "midlayer.mlp.gate_proj": (INNER, HIDDEN),
        "midlayer.mlp.up_proj": (INNER, HIDDEN),
        "midlayer.mlp.down_proj": (HIDDEN, INNER),
        "midlayer.hidden_norm": (HIDDEN,),
        "midlayer.input_layernorm": (HIDDEN,),
        "midlayer.post_attention_layernorm": (HIDDEN,),
        "norm": (HIDDEN,),
        "fc": (HIDDEN, 3 * HIDDEN),
        "lm_head": (DRAFT_VOCABULARY, HIDDEN),
    }
    tensors = {f"{name}.weight": torch.randn(shape, generator=random) * 0.1 for name, shape in shapes.items()}
    known = torch.randperm(VOCABULARY, generator=random)[:DRAFT_VOCABULARY].sort().values
    tensors["d2t"] = known - torch.arange(DRAFT_VOCABULARY)
    tensors["t2d"] = torch.zeros(VOCABULARY, dtype=torch.bool).index_fill(0, known, True)
    return tensors
