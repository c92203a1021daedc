"""Tiny drafts and verifiers made on the spot: a config and random tensors, which a test changes before writing."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from . import home_made as spelt
from .tiny import Sizes, Tiny, random, write

# All different, and heads * head size is not the hidden size: a transposed matrix never has the right shape.
SIZES = Sizes(hidden=16, inner=40, heads=4, kv_heads=2, head_dim=6, vocabulary=32, draft_vocabulary=20)
RANK = 4  # of DSpark's head
LLAMA = SIZES.llama(rope_theta=500000.0)

# A shell starts what runs in its background with interrupts ignored, and the commands that tests interrupt inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Machines are shared, and a slow example is not a wrong one.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# For tensors as tiny as these a second thread only waits: on a machine that others use, for most of the time.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where drafts that a test serves or measures are converted to: never the cache of whoever runs the tests."""
    monkeypatch.setenv("SPEC_CONVERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make_verifier(tmp_path: Path) -> Callable[..., Path]:
    """A verifier with eight layers; its weights are only its embedding and its head, all that a draft borrows."""

    def make(name: str = "verifier", **changes: Any) -> Path:
        config = {key: value for key, value in (LLAMA | {"num_hidden_layers": 8} | changes).items() if value is not ...}
        shape = config.get("vocab_size", SIZES.vocabulary), config.get("hidden_size", SIZES.hidden)
        tables = random({"model.embed_tokens.weight": shape, "lm_head.weight": shape})
        return write(tmp_path / name, config, tables)

    return make


@pytest.fixture
def verifier(make_verifier: Callable[..., Path]) -> Path:
    return make_verifier()


@pytest.fixture
def eagle(tmp_path: Path, verifier: Path) -> Callable[..., Tiny]:
    """An EAGLE-1 draft: `eagle(layers=2)`; keywords beyond change config.json."""

    def make(*, layers: int = 1, **changes: Any) -> Tiny:
        return Tiny(dict(LLAMA), SIZES.eagle(layers), tmp_path / "draft", verifier).set(**changes)

    return make


@pytest.fixture
def eagle3(tmp_path: Path, verifier: Path) -> Callable[..., Tiny]:
    """SafeAILab's EAGLE-3: `eagle3(prefix="layers.0.", layers=2, states=4)`; keywords beyond change config.json."""

    def make(*, prefix: str = "midlayer.", layers: int = 1, states: int = 3, **changes: Any) -> Tiny:
        config = LLAMA | {"draft_vocab_size": SIZES.draft_vocabulary}
        return Tiny(config, SIZES.eagle3(prefix, layers, states), tmp_path / "draft", verifier).set(**changes)

    return make


@pytest.fixture
def specforge(eagle3: Callable[..., Tiny]) -> Callable[..., Tiny]:
    """SpecForge's EAGLE-3: another architecture name, layer ids that count outputs."""
    return lambda **changes: eagle3(**{"architectures": ["LlamaForCausalLMEagle3"]} | changes)


@pytest.fixture
def vocabulary_of() -> Callable[[Iterable[int]], dict[str, Tensor]]:
    return SIZES.vocabulary_map


@pytest.fixture
def peagle(eagle3: Callable[..., Tiny]) -> Callable[..., Tiny]:
    """A unified P-EAGLE draft of two layers, all of its tensors its own: no other layout of them is known here."""

    def make(**changes: Any) -> Tiny:
        draft = eagle3(prefix="layers.0.", layers=2)
        converted = draft.convert(norm_before_residual=False)
        own = {"speculators_model_type": "peagle", "embed_requires_grad": True, "mask_token_id": 3}
        named = converted.config["speculators_config"] | {"algorithm": "peagle"}
        draft.config = converted.config | own | {"architectures": ["PEagleSpeculator"], "speculators_config": named}
        draft.tensors = converted.tensors | SIZES.embedding() | random({"mask_hidden": (1, 1, 3 * SIZES.hidden)})
        return draft.set(**changes)

    return make


@pytest.fixture
def home_made(tmp_path: Path, verifier: Path) -> Callable[..., Tiny]:
    """The home-made Qwen3 draft as its trainer saves it, or holds it (``raw``): as wide as its heads together."""
    own, names = replace(SIZES, hidden=24), (f"draft-{number}" for number in count())

    def make(*, raw: bool = False, layers: int = 1, **changes: Any) -> Tiny:
        held = spelt.raw(own, layers=layers, target=SIZES.hidden)
        tensors = held if raw else spelt.saved(held, own)
        config = spelt.config(own, layers=layers, target=SIZES.hidden)
        return Tiny(config, tensors, tmp_path / next(names), verifier).set(**changes)

    return make


@pytest.fixture
def dflash(tmp_path: Path, verifier: Path) -> Callable[..., Tiny]:
    """DFlash as its authors publish it: `dflash(layers=2, states=2)`; keywords beyond change config.json."""

    def make(*, layers: int = 1, states: int = 3, **changes: Any) -> Tiny:
        own = {
            "architectures": ["DFlashDraftModel"], "model_type": "qwen3", "block_size": 8, "num_target_layers": 8,
            "num_hidden_layers": layers, "head_dim": SIZES.head_dim, "layer_types": ["full_attention"] * layers,
            "dflash_config": {"mask_token_id": 31, "target_layer_ids": [1, 3, 4][:states]},
        }  # fmt: skip
        return Tiny(LLAMA | own, SIZES.dflash(layers, states), tmp_path / "draft", verifier).set(**changes)

    return make


@pytest.fixture
def dspark(dflash: Callable[..., Tiny]) -> Callable[..., Tiny]:
    """DSpark as SpecForge writes it."""

    def make(**changes: Any) -> Tiny:
        draft = dflash(**{"architectures": ["DSparkDraftModel"], "block_size": 7} | changes)
        draft.config["dflash_config"] |= {
            "projector_type": "dspark", "markov_rank": RANK, "markov_head_type": "vanilla",
            "enable_confidence_head": True, "confidence_head_with_markov": True,
        }  # fmt: skip
        draft.tensors |= SIZES.markov_head(RANK, SIZES.vocabulary)
        return draft

    return make


@pytest.fixture
def mlp(tmp_path: Path, verifier: Path) -> Callable[..., Tiny]:
    """The beginner's MLP draft with two linears."""
    return lambda **changes: Tiny(SIZES.mlp_config(), SIZES.mlp(), tmp_path / "draft", verifier).set(**changes)


@pytest.fixture
def old_library(tmp_path: Path, verifier: Path) -> Callable[..., Tiny]:
    """The `eagle` type that the speculators library wrote until 0.6."""

    def make(**changes: Any) -> Tiny:
        draft = Tiny(SIZES.old_library(LLAMA), SIZES.eagle(), tmp_path / "draft", verifier).set(**changes)
        return draft.rename("fc.", "fusion_fc.").rename("layers.0.", "transformer.")

    return make
