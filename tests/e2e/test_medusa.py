"""The example plugin's promise: a stock vLLM serves what it converts, biases included, and drafts as the heads say."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ..medusa import HOME, environment
from ..tiny import random, write
from .conftest import Convert
from .real_vllm import native, serve
from .tiny_pairs import SIZES, write_verifier

pytestmark = [pytest.mark.vllm, pytest.mark.long]

HEADS, TOKENS = 3, 40
PROMPTS = [[7 * n % 500 + 1, 3 * n % 500 + 2, 11 * n % 500 + 3, 5] for n in range(6)]
UNTOKENISED = {"skip_tokenizer_init": True, "dtype": "float32", "max_model_len": 96}


def published(verifier: Path) -> dict[str, Tensor]:
    """Heads that mostly say what the verifier says next: its own head, after layers that weigh little."""
    said = load_file(verifier / "model.safetensors")["lm_head.weight"]
    tensors: dict[str, Tensor] = {}
    for head in range(HEADS):
        shapes = {f"{head}.0.linear.weight": (SIZES.hidden, SIZES.hidden), f"{head}.0.linear.bias": (SIZES.hidden,)}
        tensors |= {name: 0.1 * tensor for name, tensor in random(shapes).items()} | {f"{head}.1.weight": said.clone()}
    return tensors


def test_vllm_drafts_as_the_heads_say(convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier, held = write_verifier(tmp_path / "verifier", "llama"), tmp_path / "held.safetensors"
    source = write(tmp_path / "heads", {"medusa_num_heads": 2, "medusa_num_layers": 1}, published(verifier))
    with monkeypatch.context() as installed:
        for name, value in environment(tmp_path / "site").items():
            installed.setenv(name, value)
        draft = convert(source, verifier=verifier)

    served = serve(
        native(draft, verifier=verifier, method="medusa", tokens=HEADS) | UNTOKENISED,
        prompts=PROMPTS,
        sampling={"temperature": 0.0, "max_tokens": TOKENS, "ignore_eos": True, "detokenize": False},
        draft_tensors=held,
    )

    written, inside = load_file(draft / "model.safetensors"), load_file(held)
    assert inside.keys() == written.keys()
    assert [name for name in written if not torch.equal(inside[name][: len(written[name])], written[name])] == []
    texts, accepted = drafted(draft, verifier)
    assert served.token_ids == texts
    assert served.accepted_per_position == accepted
    assert min(accepted) > 0


def drafted(draft: Path, verifier: Path) -> tuple[list[list[int]], list[int]]:
    """The verifier's own greedy texts, and how many tokens of the heads they accept at each position."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(verifier, dtype=torch.float32)
    texts, accepted = [], [0] * HEADS
    for prompt in PROMPTS:
        # Two tokens beyond the end: the last drafts reach over it.
        whole = model.generate(
            torch.tensor([prompt]), max_new_tokens=TOKENS + HEADS, do_sample=False, eos_token_id=None
        )
        states = model(whole, output_hidden_states=True).hidden_states[-1][0]
        proposals = heads(draft, states)
        tokens = whole[0].tolist()
        texts.append(tokens[len(prompt) : len(prompt) + TOKENS])
        at, end = len(prompt) - 1, len(prompt) + TOKENS
        while at + 2 < end:
            right = agreeing(proposals[at], tokens[at + 2 :])
            for position in range(right):
                accepted[position] += 1
            at += right + 1
    return texts, accepted


def agreeing(proposed: Sequence[int], said: Sequence[int]) -> int:
    """How many of the proposed tokens, from the first on, the verifier says itself."""
    pairs = list(zip(proposed, said[: len(proposed)], strict=True))
    return next((n for n, (one, other) in enumerate(pairs) if one != other), len(pairs))


def heads(draft: Path, states: Tensor) -> list[list[int]]:
    """What each state's heads propose, computed by the example's own code."""
    spec = importlib.util.spec_from_file_location("spec_convert_medusa", HOME / "spec_convert_medusa.py")
    assert spec is not None
    assert spec.loader is not None
    medusa: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(medusa)
    config = medusa.config_model().model_validate(json.loads((draft / "config.json").read_text()))
    said = medusa.logits(config, load_file(draft / "model.safetensors"), states)
    proposed: list[list[int]] = said.argmax(-1).T.tolist()
    return proposed
