"""What the tests of drafts stand on: small verifiers of several families, and a map of some of their tokens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert.training.drafts.wanted import Vocabulary

from ..small import HIDDEN, LAYERS, VOCABULARY


def write_model(folder: Path, kind: str, **changes: Any) -> Path:
    """A whole model of this type, random in every weight, its final norm too."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "hidden_size": HIDDEN, "intermediate_size": 96, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 32, "vocab_size": VOCABULARY, "max_position_embeddings": 256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 300000.0}, "tie_word_embeddings": False,
        "initializer_range": 0.2,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes | changes))
        torch.nn.init.uniform_(model.model.norm.weight, 0.5, 3.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("qwen3") / "verifier", "qwen3")


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("qwen2") / "verifier", "qwen2")


@pytest.fixture
def changed(verifier: Path, tmp_path: Path) -> Callable[..., Path]:
    """The small verifier with other facts in its config.json; an ellipsis takes a key away."""

    def make(**changes: Any) -> Path:
        folder = shutil.copytree(verifier, tmp_path / "changed")
        config = json.loads((folder / "config.json").read_text()) | changes
        config = {key: value for key, value in config.items() if value is not ...}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


def some_tokens(count: int = 100, *, seed: int = 0) -> Vocabulary:
    """The map of ``count`` random tokens of the verifiers here, not in their order."""
    ids = torch.randperm(VOCABULARY, generator=torch.Generator().manual_seed(seed))[:count]
    t2d = torch.zeros(VOCABULARY, dtype=torch.bool)
    t2d[ids] = True
    return ids - torch.arange(count), t2d
