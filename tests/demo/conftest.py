"""A tiny verifier on disk, without a model behind it, and answers that nobody gave: enough for a draft to fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spec_convert.demo.answers import Answer
from spec_convert.demo.eagle1 import fresh_draft, shared_tables
from spec_convert.models.draft import VerifierTensors
from spec_convert.models.eagle import EagleDraft
from spec_convert.verifier import Verifier, open_verifier

VOCABULARY, SIZE = 24, 16


@pytest.fixture
def verifier(tmp_path: Path) -> Verifier:
    folder = tmp_path / "verifier"
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "hidden_size": SIZE, "intermediate_size": 24, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 4, "vocab_size": VOCABULARY, "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "num_hidden_layers": 2, "max_position_embeddings": 64, "tie_word_embeddings": True, "bos_token_id": 1,
        "eos_token_id": 2, "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    save_file({"model.embed_tokens.weight": torch.randn(VOCABULARY, SIZE)}, folder / "model.safetensors")
    return open_verifier(folder)


@pytest.fixture
def shared(verifier: Verifier) -> VerifierTensors:
    return shared_tables(verifier)


@pytest.fixture
def draft(verifier: Verifier, shared: VerifierTensors) -> EagleDraft:
    return fresh_draft(verifier, shared)


@pytest.fixture
def answer_of() -> Callable[..., Answer]:
    """An answer of ``length`` tokens, the question included, with random states; ``ids`` None: random tokens."""

    def make(length: int, *, start: int, ids: torch.Tensor | None = None) -> Answer:
        torch.manual_seed(length)
        tokens = torch.randint(VOCABULARY, (length,)) if ids is None else ids
        return Answer(token_ids=tokens, states=torch.randn(length - 1, SIZE), start=start)

    return make
