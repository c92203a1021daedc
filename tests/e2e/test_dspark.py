"""vLLM's model of DSpark holds what a unified directory holds, and its heads compute what the reference draft's do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spec_convert import load_draft
from spec_convert.models.dspark import DSparkDraft

from ..tiny import random, renamed
from .conftest import Convert
from .same_function import assert_close
from .tiny_pairs import KNOWN, SIZES, VOCABULARY, Case, dflash, write_verifier

pytestmark = [pytest.mark.long, pytest.mark.vllm]

RANK, TOKENS = 16, 4
LAYERS = SIZES.dflash(layers=2)
STACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
BORROWED = {"model.embed_tokens.weight", "lm_head.weight"}
SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 6, "use_sliding_window": True}


def at_the_root(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return renamed(renamed(tensors, "markov_head.", ""), "confidence_head.proj.", "confidence_proj.")


def dspark(tensors: Mapping[str, Tensor], **config: Any) -> Case:
    heads = {"markov_rank": RANK, "markov_head_type": "vanilla"}
    return dflash(tensors, **{"architectures": ["DSparkDraftModel"], "block_size": TOKENS} | heads | config)


CASES = {
    "SpecForge's layout": dspark(LAYERS | SIZES.markov_head(RANK, VOCABULARY)),
    "ModelOpt's layout, labels not shifted, sliding layers that see what is before them": dspark(
        LAYERS | at_the_root(SIZES.markov_head(RANK, VOCABULARY)), shift_label=False, block_size=TOKENS + 1, **SLIDING
    ),
    "a vocabulary of its own, sliding layers that see the block": dspark(
        LAYERS | SIZES.markov_head(RANK, len(KNOWN)) | SIZES.reduced_head(KNOWN),
        draft_vocab_size=len(KNOWN), is_causal=False, **SLIDING,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_vllm_loads_what_was_converted_and_its_heads_are_the_reference_drafts(
    name: str, convert: Convert, tmp_path: Path
) -> None:
    case = CASES[name]
    verifier = write_verifier(tmp_path / "verifier", case.verifier)
    output = convert(case.write(tmp_path / "draft"), verifier=verifier, flags=("--validate",))
    given = random({"rows": (6, SIZES.hidden), "states": (6, 3 * SIZES.hidden)})
    given |= {"tokens": torch.tensor([3, 400, 11, 7, 90, 511])}
    save_file(given, tmp_path / "given.safetensors")

    script = Path(__file__).with_name("dspark_in_vllm.py")
    files = (output, tmp_path / "given.safetensors", tmp_path / "made.safetensors")
    ran = subprocess.run([sys.executable, script, *files], check=True, capture_output=True, text=True, timeout=300)

    made = load_file(files[-1])
    assert_understood(json.loads(ran.stdout.splitlines()[-1]), json.loads((output / "config.json").read_text()))
    assert_loaded(made, load_file(output / "model.safetensors"))
    assert_heads_are_alike(made, given, output)


def assert_understood(by_vllm: dict[str, Any], config: dict[str, Any]) -> None:
    layer = config["transformer_layer_config"]
    causal = [kind == "sliding_attention" and not config["sliding_window_non_causal"] for kind in layer["layer_types"]]
    assert by_vllm == {
        "method": "dspark", "tokens": TOKENS, "mask": config["mask_token_id"], "causal": causal,
        "sample_from_anchor": config["sample_from_anchor"], "layers": config["aux_hidden_state_layer_ids"],
    }  # fmt: skip


def assert_loaded(made: Mapping[str, Tensor], file: Mapping[str, Tensor]) -> None:
    """Every tensor of the file lies in vLLM's model, and nothing else but what the verifier lends."""
    loaded = (".weight", ".bias", "draft_id_to_target_id")
    held = {name.removeprefix("weights."): made[name] for name in made if name.endswith(loaded)}
    expected, used = {}, {"t2d"}  # which vLLM does not read
    for name in held:
        whole = next((whole for whole in STACKED if whole in name), "")
        own = [as_in_file(name.replace(whole, part)) for part in STACKED.get(whole, [""])]
        used |= set(own)
        if own[0] in file:
            expected[name] = torch.cat([file[part] for part in own])
    assert file.keys() <= used
    assert held.keys() - expected.keys() <= BORROWED
    for name, tensor in expected.items():
        padded = held[name]  # vLLM fills tables up to a multiple of 64 rows
        assert_close(padded[: len(tensor)].to(tensor.dtype), tensor)


def as_in_file(name: str) -> str:
    return name.removeprefix("model.").replace("draft_id_to_target_id", "d2t")


@torch.no_grad()
def assert_heads_are_alike(made: Mapping[str, Tensor], given: Mapping[str, Tensor], output: Path) -> None:
    draft = load_draft(output)
    assert isinstance(draft, DSparkDraft)
    assert_close(made["fused"], draft.fc(given["states"]))
    assert_close(made["bias"], draft.markov_head(given["tokens"]))
    assert_close(made["confidence"], draft.confidence(given["rows"], given["tokens"]))
    said = torch.arange(VOCABULARY) if draft.kept_tokens() is None else draft.target_ids()
    assert torch.equal(made["said"], said)
