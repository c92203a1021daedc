"""A stock vLLM loads a converted directory by its path alone, and drafts with exactly the source's tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from .conftest import Convert
from .real_vllm import unified
from .same_function import assert_same_function, serve_recorded
from .tiny_pairs import CASES, SIZES, write_verifier

pytestmark = pytest.mark.vllm


def test_vllm_drafts_with_the_tensors_of_the_source(convert: Convert, tmp_path: Path) -> None:
    case, held = CASES["eagle3"], tmp_path / "held.safetensors"
    verifier = write_verifier(tmp_path / "verifier", case.verifier)
    output = convert(case.write(tmp_path / "draft"), verifier=verifier)

    served = serve_recorded(unified(output), verifier, draft_tensors=held)

    assert_same_function(served, output, verifier)
    inside = load_file(held)
    inside["lm_head.weight"] = inside["lm_head.weight"][: SIZES.draft_vocabulary]  # vLLM pads to a multiple of 64
    unequal = [name for name, tensor in as_vllm_holds(case.tensors).items() if not torch.equal(inside[name], tensor)]
    assert unequal == []


def as_vllm_holds(source: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under vLLM's names, with its fused projections. `t2d` is not held: only training reads it."""

    def stacked(*names: str) -> Tensor:
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
