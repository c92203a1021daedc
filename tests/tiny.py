"""Tiny drafts of every layout, in any size: a config and random tensors, which a test changes and converts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spec_convert import convert
from spec_convert.conversion import Conversion
from spec_convert.documentation import ours
from spec_convert.errors import Refused
from spec_convert.findings import Finding

BUILT_IN = sorted(name for name, fmt in ours().formats.items() if fmt.unconverted is None)
RECOGNISED = sorted(ours().formats.keys() - BUILT_IN)


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
        self.tensors = renamed(self.tensors, old, new)
        return self

    def write(self) -> Path:
        return write(self.folder, self.config, self.tensors)

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


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a draft, and its tensors as each layout names them."""

    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    draft_vocabulary: int

    def llama(self, **changes: Any) -> dict[str, Any]:
        """A config.json as EAGLE's authors write it: it says neither the head size nor the dtype."""
        return {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": self.hidden,
            "intermediate_size": self.inner, "num_hidden_layers": 1, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "vocab_size": self.vocabulary, "hidden_act": "silu",
            "rms_norm_eps": 1e-6, "max_position_embeddings": 2048,
        } | changes  # fmt: skip

    def layer(self, prefix: str, width: int, *norms: str) -> dict[str, Tensor]:
        """One Llama layer whose attention reads ``width`` columns."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes = {
            "self_attn.q_proj": (query, width), "self_attn.k_proj": (key, width), "self_attn.v_proj": (key, width),
            "self_attn.o_proj": (self.hidden, query), "mlp.gate_proj": (self.inner, self.hidden),
            "mlp.up_proj": (self.inner, self.hidden), "mlp.down_proj": (self.hidden, self.inner),
        }  # fmt: skip
        shapes |= dict.fromkeys(("post_attention_layernorm", *norms), (self.hidden,))
        return random({f"{prefix}{name}.weight": shape for name, shape in shapes.items()})

    def later_layers(self, layers: int) -> dict[str, Tensor]:
        made = (self.layer(f"layers.{number}.", self.hidden, "input_layernorm") for number in range(1, layers))
        return {name: tensor for layer in made for name, tensor in layer.items()}

    def qkv_bias(self, prefix: str) -> dict[str, Tensor]:
        heads = {"q_proj": self.heads, "k_proj": self.kv_heads, "v_proj": self.kv_heads}
        return random({f"{prefix}self_attn.{name}.bias": (n * self.head_dim,) for name, n in heads.items()})

    def norms(self, *names: str) -> dict[str, Tensor]:
        """Weights of norms over one state."""
        return random({f"{name}.weight": (self.hidden,) for name in names})

    def embedding(self, name: str = "embed_tokens.weight") -> dict[str, Tensor]:
        """A table with one row a token: an embedding or a full head."""
        return random({name: (self.vocabulary, self.hidden)})

    def eagle(self, layers: int = 1) -> dict[str, Tensor]:
        fusion = random({"fc.weight": (self.hidden, 2 * self.hidden)})
        return fusion | self.layer("layers.0.", self.hidden) | self.later_layers(layers)

    def eagle3_body(
        self, prefix: str = "midlayer.", layers: int = 1, states: int = 3, target: int = 0
    ) -> dict[str, Tensor]:
        """All but head and vocabulary. ``target``: the width of the verifier's states, where it is another one."""
        fusion = random({"fc.weight": (self.hidden, states * (target or self.hidden)), "norm.weight": (self.hidden,)})
        return (
            fusion | self.layer(prefix, 2 * self.hidden, "hidden_norm", "input_layernorm") | self.later_layers(layers)
        )

    def eagle3(self, prefix: str = "midlayer.", layers: int = 1, states: int = 3, target: int = 0) -> dict[str, Tensor]:
        """With a draft vocabulary of every token from the fifth on, as far as it goes."""
        known = range(4, 4 + self.draft_vocabulary)
        return self.eagle3_body(prefix, layers, states, target) | self.reduced_head(known)

    def research(self, layers: int = 1) -> dict[str, Tensor]:
        """EAGLE-3 as speculators' research trainer saves it: three norms at the root, the whole vocabulary."""
        root = {"layers.0.hidden_norm.": "hidden_norm.", "layers.0.input_layernorm.": "input_layernorm."}
        tensors = self.eagle3_body("layers.0.", layers)
        for old, new in (root | {"norm.": "lm_head_layernorm."}).items():
            tensors = renamed(tensors, old, new)
        head = random({"draft.lm_head.weight": (self.vocabulary, self.hidden)})
        return tensors | renamed(head, "draft.", "")

    def dflash(self, layers: int = 1, states: int = 3) -> dict[str, Tensor]:
        """What DFlash checkpoints hold: embedding and head are the verifier's."""
        fusion = random({"fc.weight": (self.hidden, states * self.hidden)}) | self.norms("hidden_norm", "norm")
        heads = ("q_norm", "k_norm")
        for number in range(layers):
            fusion |= self.layer(f"layers.{number}.", self.hidden, "input_layernorm")
            fusion |= random({f"layers.{number}.self_attn.{norm}.weight": (self.head_dim,) for norm in heads})
        return fusion

    def markov_head(self, rank: int, said: int) -> dict[str, Tensor]:
        """DSpark's heads; ``said``: how many tokens the draft can say."""
        return random({
            "markov_head.markov_w1.weight": (self.vocabulary, rank), "markov_head.markov_w2.weight": (said, rank),
            "confidence_head.proj.weight": (1, self.hidden + rank), "confidence_head.proj.bias": (1,),
        })  # fmt: skip

    def reduced_head(self, tokens: Iterable[int]) -> dict[str, Tensor]:
        # Numbers of its own: under its own name it would hold the verifier's first rows, which are other tokens.
        head = random({"draft.lm_head.weight": (self.draft_vocabulary, self.hidden)})
        return renamed(head, "draft.", "") | self.vocabulary_map(tokens)

    def vocabulary_map(self, tokens: Iterable[int]) -> dict[str, Tensor]:
        """`d2t` (offsets) and `t2d` of a draft that knows these tokens."""
        kept = torch.tensor(list(tokens))
        marked = torch.zeros(self.vocabulary, dtype=torch.bool).index_fill(0, kept, True)
        return {"d2t": kept - torch.arange(len(kept)), "t2d": marked}

    def mlp(self, linears: int = 2) -> dict[str, Tensor]:
        shapes: dict[str, tuple[int, ...]] = {}
        for number in range(0, 3 * linears, 3):
            shapes |= {f"mlp.{number}.weight": (self.hidden, self.hidden), f"mlp.{number}.bias": (self.hidden,)}
            shapes |= {f"mlp.{number + 2}.{part}": (self.hidden,) for part in ("weight", "bias")}
        return self.embedding("embeddings.weight") | random(shapes) | self.embedding("lm_head.weight")

    def mlp_config(self, linears: int = 2) -> dict[str, Any]:
        sizes = {"hidden_size": self.hidden, "vocab_size": self.vocabulary, "mlp_layers": linears}
        return {"model_type": "eagle"} | sizes

    def old_library(self, layer: Mapping[str, Any]) -> dict[str, Any]:
        """config.json of the `eagle` type that the speculators library wrote until 0.6."""
        return {
            "architectures": ["EagleSpeculator"], "speculators_model_type": "eagle", "fusion_bias": False,
            "layernorms": False, "transformer_layer_architecture": "LlamaDecoderLayer",
            "transformer_layer_config": dict(layer),
        }  # fmt: skip


def random(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Every name has numbers of its own, on every run: two tensors that change places are seen."""

    def make(name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(crc32(name.encode()))) * 0.3

    return {name: make(name, shape) for name, shape in shapes.items()}


def renamed(tensors: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    """Another prefix for the names that begin with ``old``."""
    return {new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in tensors.items()}


def behind_model(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As NeMo Automodel names them: all that is the backbone's gets its prefix."""
    outside = ("lm_head.weight", "d2t", "t2d", "mask_hidden")
    return {name if name in outside else f"model.{name}": tensor for name, tensor in tensors.items()}


def write(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(dict(tensors), folder / "model.safetensors")
    return folder
