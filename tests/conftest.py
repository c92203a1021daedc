"""Tiny drafts and verifiers made on the spot: a config and random tensors, which a test changes before writing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spec_convert import convert
from spec_convert.conversion import Conversion
from spec_convert.errors import Refused
from spec_convert.findings import Finding

# All different, and heads * head size is not the hidden size: a transposed matrix never has the right shape.
HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY, DRAFT_VOCABULARY = 16, 40, 4, 2, 6, 32, 20
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
    "num_hidden_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "vocab_size": VOCABULARY,
    "hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 2048, "rope_theta": 500000.0,
}  # fmt: skip


@dataclass
class Tiny:
    """A checkpoint that a test changes as it likes and then converts."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    folder: Path
    verifier: Path
    outputs: list[Path] = field(default_factory=list)

    def set(self, **changes: Any) -> Tiny:
        """Change keys of config.json; ``key=...`` (an ellipsis) removes one."""
        self.config = {key: value for key, value in (self.config | changes).items() if value is not ...}
        return self

    def rename(self, old: str, new: str) -> Tiny:
        self.tensors = {
            name.replace(old, new, 1) if name.startswith(old) else name: t for name, t in self.tensors.items()
        }
        return self

    def write(self) -> Path:
        self.folder.mkdir(exist_ok=True, parents=True)
        (self.folder / "config.json").write_text(json.dumps(self.config))
        save_file(self.tensors, self.folder / "model.safetensors")
        return self.folder

    def convert(self, **flags: Any) -> Converted:
        output = self.folder.parent / f"{self.folder.name}-unified-{len(self.outputs)}"
        self.outputs.append(output)
        return Converted(convert(self.write(), output, **{"verifier": self.verifier} | flags))

    def refusal(self, **flags: Any) -> dict[str, Finding]:
        """The error findings with which converting it is refused, by rule."""
        with pytest.raises(Refused) as refused:
            self.convert(**flags)
        assert not self.outputs[-1].exists()
        return {finding.rule: finding for finding in refused.value.findings if finding.level == "error"}


@dataclass
class Converted:
    """A conversion and what it left on disk."""

    conversion: Conversion

    @property
    def output(self) -> Path:
        return self.conversion.output

    @property
    def config(self) -> dict[str, Any]:
        written: dict[str, Any] = json.loads((self.output / "config.json").read_text())
        return written

    @property
    def layer(self) -> dict[str, Any]:
        layer: dict[str, Any] = self.config["transformer_layer_config"]
        return layer

    @property
    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.output / "model.safetensors")

    @property
    def dropped(self) -> dict[str, str]:
        dropped: dict[str, str] = json.loads((self.output / "conversion.json").read_text())["tensors"]["dropped"]
        return dropped

    @property
    def findings(self) -> dict[str, Finding]:
        return {finding.rule: finding for finding in self.conversion.findings}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * 0.3


def layer_tensors(prefix: str, width: int, *norms: str) -> dict[str, Tensor]:
    """One Llama layer whose attention reads ``width`` columns."""
    shapes = {
        "self_attn.q_proj": (HEADS * HEAD_DIM, width), "self_attn.k_proj": (KV_HEADS * HEAD_DIM, width),
        "self_attn.v_proj": (KV_HEADS * HEAD_DIM, width), "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
        "mlp.gate_proj": (INNER, HIDDEN), "mlp.up_proj": (INNER, HIDDEN), "mlp.down_proj": (HIDDEN, INNER),
    }  # fmt: skip
    shapes |= dict.fromkeys(("post_attention_layernorm", *norms), (HIDDEN,))
    return {f"{prefix}{name}.weight": random(*shape, seed=n) for n, (name, shape) in enumerate(shapes.items())}


def eagle_tensors(layers: int = 1) -> dict[str, Tensor]:
    tensors = {"fc.weight": random(HIDDEN, 2 * HIDDEN)} | layer_tensors("layers.0.", HIDDEN)
    for number in range(1, layers):
        tensors |= layer_tensors(f"layers.{number}.", HIDDEN, "input_layernorm")
    return tensors


def eagle3_tensors(prefix: str = "midlayer.", layers: int = 1, states: int = 3) -> dict[str, Tensor]:
    tensors = {"fc.weight": random(HIDDEN, states * HIDDEN), "norm.weight": random(HIDDEN)}
    tensors |= layer_tensors(prefix, 2 * HIDDEN, "hidden_norm", "input_layernorm")
    for number in range(1, layers):
        tensors |= layer_tensors(f"layers.{number}.", HIDDEN, "input_layernorm")
    return tensors | {"lm_head.weight": random(DRAFT_VOCABULARY, HIDDEN)} | vocabulary_map(range(4, 24))


def vocabulary_map(tokens: range | list[int]) -> dict[str, Tensor]:
    """`d2t` (offsets) and `t2d` of a draft that knows these tokens."""
    kept = torch.tensor(list(tokens))
    marked = torch.zeros(VOCABULARY, dtype=torch.bool).index_fill(0, kept, True)
    return {"d2t": kept - torch.arange(len(kept)), "t2d": marked}


@pytest.fixture
def make_verifier(tmp_path: Path) -> Callable[..., Path]:
    """A verifier with eight layers; its weights are only its embedding and its head, all that a draft borrows."""

    def make(name: str = "verifier", **changes: Any) -> Path:
        config = {key: value for key, value in (LLAMA | {"num_hidden_layers": 8} | changes).items() if value is not ...}
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        rows, width = config.get("vocab_size", VOCABULARY), config.get("hidden_size", HIDDEN)
        tables = {"model.embed_tokens.weight": random(rows, width), "lm_head.weight": random(rows, width, seed=1)}
        save_file(tables, folder / "model.safetensors")
        return folder

    return make


@pytest.fixture
def verifier(make_verifier: Callable[..., Path]) -> Path:
    return make_verifier()


@pytest.fixture
def eagle(tmp_path: Path, verifier: Path) -> Callable[..., Tiny]:
    """An EAGLE-1 draft: `eagle(layers=2)`; keywords beyond change config.json."""

    def make(*, layers: int = 1, **changes: Any) -> Tiny:
        return Tiny(dict(LLAMA), eagle_tensors(layers), tmp_path / "draft", verifier).set(**changes)

    return make


@pytest.fixture
def eagle3(tmp_path: Path, verifier: Path) -> Callable[..., Tiny]:
    """SafeAILab's EAGLE-3: `eagle3(prefix="layers.0.", layers=2, states=4)`; keywords beyond change config.json."""

    def make(*, prefix: str = "midlayer.", layers: int = 1, states: int = 3, **changes: Any) -> Tiny:
        config = LLAMA | {"draft_vocab_size": DRAFT_VOCABULARY}
        return Tiny(config, eagle3_tensors(prefix, layers, states), tmp_path / "draft", verifier).set(**changes)

    return make


@pytest.fixture
def specforge(eagle3: Callable[..., Tiny]) -> Callable[..., Tiny]:
    """SpecForge's EAGLE-3: another architecture name, layer ids that count outputs."""
    return lambda **changes: eagle3(**{"architectures": ["LlamaForCausalLMEagle3"]} | changes)


@pytest.fixture
def vocabulary_of() -> Callable[[range | list[int]], dict[str, Tensor]]:
    return vocabulary_map


@pytest.fixture
def mlp(tmp_path: Path, verifier: Path) -> Callable[..., Tiny]:
    """The beginner's MLP draft with two linears."""

    def make(**changes: Any) -> Tiny:
        tensors = {"embeddings.weight": random(VOCABULARY, HIDDEN), "lm_head.weight": random(VOCABULARY, HIDDEN)}
        for number in (0, 3):
            tensors |= {f"mlp.{number}.weight": random(HIDDEN, HIDDEN), f"mlp.{number}.bias": random(HIDDEN)}
            tensors |= {f"mlp.{number + 2}.{part}": random(HIDDEN) for part in ("weight", "bias")}
        config = {"model_type": "eagle", "hidden_size": HIDDEN, "vocab_size": VOCABULARY, "mlp_layers": 2}
        return Tiny(config, tensors, tmp_path / "draft", verifier).set(**changes)

    return make


@pytest.fixture
def old_library(tmp_path: Path, verifier: Path) -> Callable[..., Tiny]:
    """The `eagle` type that the speculators library wrote until 0.6."""

    def make(**changes: Any) -> Tiny:
        config = {
            "architectures": ["EagleSpeculator"], "speculators_model_type": "eagle", "fusion_bias": False,
            "layernorms": False, "transformer_layer_architecture": "LlamaDecoderLayer",
            "transformer_layer_config": LLAMA | {"num_hidden_layers": 1},
        }  # fmt: skip
        draft = Tiny(config, eagle_tensors(), tmp_path / "draft", verifier).set(**changes)
        return draft.rename("fc.", "fusion_fc.").rename("layers.0.", "transformer.")

    return make
