"""A stock vLLM loads a converted directory by its path alone, and drafts with exactly the source's tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .conftest import Convert
from .real_vllm import serve, unified
from .tiny_pair import DRAFT_VOCABULARY, tiny_draft, tiny_verifier

pytestmark = pytest.mark.vllm

PROMPT = [3, 7, 11, 5]
NEW_TOKENS = 24


def test_vllm_drafts_with_the_tensors_of_the_source(convert: Convert, tmp_path: Path) -> None:
    draft, verifier = tiny_draft(tmp_path / "draft"), tiny_verifier(tmp_path / "verifier")
    output = convert(draft, verifier=verifier)

    held = tmp_path / "held.safetensors"
    served = serve(
        unified(output) | {"dtype": "float32", "max_model_len": 64, "skip_tokenizer_init": True},
        prompts=[PROMPT],
        sampling={"temperature": 0, "max_tokens": NEW_TOKENS, "ignore_eos": True, "detokenize": False},
        draft_tensors=held,
    )

    assert served.drafts > 0
    assert served.token_ids == [greedy(verifier)]
    inside = load_file(held)
    inside["lm_head.weight"] = inside["lm_head.weight"][:DRAFT_VOCABULARY]  # vLLM pads the rows to a multiple of 64
    expected = as_vllm_holds(torch.load(draft / "pytorch_model.bin", weights_only=True))
    unequal = [name for name, tensor in expected.items() if not torch.equal(inside[name], tensor)]
    assert unequal == []


def greedy(verifier: Path) -> list[int]:
    """The verifier's own text, without any draft."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(verifier, dtype=torch.float32)
    ids = torch.tensor([PROMPT])
    for _ in range(NEW_TOKENS):
        with torch.no_grad():
            best = model(ids).logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, best], dim=1)
    return ids[0, len(PROMPT) :].tolist()


def as_vllm_holds(source: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors under vLLM's names, with its fused projections. `t2d` is not held: only training reads it."""

    def stacked(*names: str) -> torch.Tensor:
        return torch.cat([source[f"midlayer.{name}.weight"] for name in names])

    layer = "model.layers.0"
    kept = ("self_attn.o_proj", "mlp.down_proj", "hidden_norm", "input_layernorm", "post_attention_layernorm")
    return {
        **{f"{layer}.{name}.weight": source[f"midlayer.{name}.weight"] for name in kept},
        f"{layer}.self_attn.qkv_proj.weight": stacked("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        f"{layer}.mlp.gate_up_proj.weight": stacked("mlp.gate_proj", "mlp.up_proj"),
        "model.fc.weight": source["fc.weight"],
        "model.norm.weight": source["norm.weight"],
        "lm_head.weight": source["lm_head.weight"],
        "draft_id_to_target_id": source["d2t"],
    }
