"""The final norm, computed from the verifier's own weights, is what transformers computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert.errors import UsageError
from spec_convert.training.capture.final_norm import BY_ONE_MORE, BY_WEIGHT, final_norm
from spec_convert.verifier import open_verifier

SMALL: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 32, "rms_norm_eps": 1e-3, "pad_token_id": 0,
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "num_experts": 2, "num_local_experts": 2, "n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1,
    "topk_group": 1, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "intermediate_size_mlp": 16,
    "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}  # fmt: skip
EXPERTS_IN = ("deepseek_v3", "gpt_oss", "llama4_text", "mixtral", "qwen2_moe", "qwen3_moe", "qwen3_next")


def write_model(folder: Path, kind: str, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **SMALL, **(EXPERTS if kind in EXPERTS_IN else {}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
        torch.nn.init.uniform_(model.model.norm.weight, 0.5, 3.0)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", sorted(BY_WEIGHT | BY_ONE_MORE))
def test_it_is_the_last_hidden_state_of_transformers(kind: str, tmp_path: Path) -> None:
    model, before = write_model(tmp_path, kind), list[torch.Tensor]()
    model.model.norm.register_forward_pre_hook(lambda _module, args: before.append(args[0]))
    with torch.no_grad():
        after = model.model(torch.tensor([[3, 1, 4, 1, 5]]), use_cache=False).last_hidden_state
    torch.testing.assert_close(final_norm(open_verifier(tmp_path))(before[0]), after, rtol=1e-6, atol=1e-6)


def test_states_and_weights_of_bfloat16_are_computed_with_in_float32(tmp_path: Path) -> None:
    model = write_model(tmp_path, "llama", torch.bfloat16)
    states = torch.randn(3, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    normed = final_norm(open_verifier(tmp_path))(states)
    assert normed.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(normed, model.model.norm.float()(states.float()), rtol=1e-6, atol=1e-6)


def test_a_multimodal_verifier_says_it_in_its_text_config(verifier: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(verifier, tmp_path / "verifier")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "sees", "text_config": config}))
    states = torch.randn(2, 64)
    assert torch.equal(final_norm(open_verifier(folder))(states), final_norm(open_verifier(verifier))(states))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "cohere"}, "its model_type is cohere"),
        ({"model_type": None}, "its model_type is None"),
        ({"rms_norm_eps": None}, "says None for `rms_norm_eps`"),
        ({"hidden_size": 32}, r"should hold the weight of its final norm, \[32\], and has the shape \(64,\)"),
    ],
)
def test_what_is_not_known_is_refused(verifier: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    folder = shutil.copytree(verifier, tmp_path / "verifier")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UsageError, match=words):
        final_norm(open_verifier(folder))
