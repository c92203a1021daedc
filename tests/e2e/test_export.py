"""A stock vLLM, without this package's plugin, serves what `export --to vllm` wrote, and computes the unified draft."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ..tiny import random
from .conftest import Convert
from .real_vllm import native
from .same_function import assert_drafts_alike, greedy_text, serve_recorded
from .tiny_pairs import NARROW, Case, eagle, eagle3, specforge, write_verifier
from .tiny_pairs import SIZES as UNEVEN

pytestmark = [pytest.mark.long, pytest.mark.vllm]

SIZES = replace(UNEVEN, heads=4, kv_heads=2)  # a native Llama config must have heads that divide the hidden size
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
BIAS = random({"fc.bias": (SIZES.hidden,)})
QK_NORMS = random({f"midlayer.self_attn.{norm}.weight": (SIZES.head_dim,) for norm in ("q_norm", "k_norm")})

CASES = {
    "eagle, two layers and own embeddings": eagle(SIZES.eagle(layers=2) | SIZES.embedding(), **HEADS),
    "eagle, query, key and value biases": eagle(SIZES.eagle() | SIZES.qkv_bias("layers.0."), **HEADS),
    "eagle, fusion bias": eagle(SIZES.eagle() | BIAS, **HEADS),
    "eagle, fusion bias and own embeddings": eagle(SIZES.eagle() | BIAS | SIZES.embedding(), **HEADS),
    "eagle-mlp": Case(config=SIZES.mlp_config(), tensors=SIZES.mlp()),  # its head is the verifier's, see `random`
    "eagle3, two layers": eagle3(SIZES.eagle3(layers=2), **HEADS),
    "eagle3, narrow": eagle3(
        NARROW.eagle3(target=SIZES.hidden) | NARROW.embedding(), sizes=NARROW, target_hidden_size=SIZES.hidden
    ),
    "eagle3, the verifier's head": eagle3(SIZES.eagle3_body(), draft_vocab_size=SIZES.vocabulary, **HEADS),
    "eagle3, residual after the norm": eagle3(
        SIZES.eagle3(prefix="layers.0."), flags=("--norm-before-residual", "--aux-layer-ids", "3,5,6"), **HEADS
    ),
    "eagle3, four states and a norm before fc": specforge(
        SIZES.eagle3(states=4) | random({"input_norm.weight": (4 * SIZES.hidden,)}), aux=(0, 2, 4, 6), **HEADS
    ),
    "eagle3, Qwen3 layers": specforge(SIZES.eagle3() | QK_NORMS, verifier="qwen3", **HEADS),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stock_vllm_computes_what_the_unified_draft_computes(
    name: str, convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    verifier = write_verifier(tmp_path / "verifier", case.verifier)
    unified = convert(case.write(tmp_path / "draft"), verifier=verifier, flags=case.flags)
    exported = tmp_path / "exported"
    command = Path(sys.executable).with_name("spec-convert")
    subprocess.run([command, "export", unified, exported, "--to", "vllm"], check=True)
    monkeypatch.setenv("VLLM_PLUGINS", "")  # this package's plugin would be one of them

    method = "eagle3" if name.startswith("eagle3") else "eagle"
    served = serve_recorded(native(exported, verifier=verifier, method=method, tokens=3), verifier)

    assert served.text == greedy_text(verifier)
    assert min(served.accepted_per_position) > 0
    assert_drafts_alike(served.proposals, unified)
