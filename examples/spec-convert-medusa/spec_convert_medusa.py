"""Medusa (arXiv 2401.10774): several heads on the verifier's last state, each guessing one token further ahead.

    head h:  x = state;  x = x + silu(linear(x)), once for each layer;  logits = lm_head(x)

Published as `medusa_lm_head.safetensors` or `.pt`, with nothing but numbers in the names: `{head}.{layer}.linear.*`,
and the head's own output matrix under the number after its last layer. Their config.json says `medusa_num_heads: 2` for
files with five heads, so heads and layers are counted in the file. The result is a config.json that vLLM reads as its
own `model_type: "medusa"`, with vLLM's names, and with `medusa_fc_bias`, without which vLLM drops every bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.envelope import envelope
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Format, Layout, Request, UnifiedType
from spec_convert.hookspecs import hookimpl
from spec_convert.rules import found
from spec_convert.shapes import Known
from spec_convert.tensor_map import TensorMap, keep, move

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel

TYPE = "medusa"


# fmt: off
def published(layers: int) -> TensorMap:
    """The names of the authors' files, with this many layers in each head."""
    return TensorMap(
        move("{h:int}.{l:int}.linear.weight", "blocks.{h:int}.layers.{l:int}.weight", shape="hidden hidden"),
        move("{h:int}.{l:int}.linear.bias",   "blocks.{h:int}.layers.{l:int}.bias",   shape="hidden"),
        move(f"{{h:int}}.{layers}.weight",    "lm_heads.{h:int}.weight",              shape="vocabulary hidden"),
    )


UNIFIED = TensorMap(
    keep("blocks.{h:int}.layers.{l:int}.weight", shape="hidden hidden"),
    keep("blocks.{h:int}.layers.{l:int}.bias",   shape="hidden"),
    keep("lm_heads.{h:int}.weight",              shape="vocabulary hidden"),
)
# fmt: on


def is_unified(checkpoint: Checkpoint) -> bool:
    return bool(checkpoint.get("speculators_model_type") == TYPE)


def recognise(checkpoint: Checkpoint) -> Evidence:
    if is_unified(checkpoint):
        return weigh(required={"`speculators_model_type` is medusa": True})
    first = checkpoint.shape("0.0.linear.weight") or ()
    return weigh(
        required={
            "numbered heads of numbered layers (`0.0.linear.weight`)": bool(first),
            "as wide as high: the heads of a grounded Hydra also read embeddings": len(set(first)) == 1,
            "no `hydra_num_heads` in config.json": checkpoint.get("hydra_num_heads") is None,
            "no `speculators_model_type` in config.json": checkpoint.get("speculators_model_type") is None,
        },
        supporting={"`medusa_num_heads` in config.json": checkpoint.get("medusa_num_heads") is not None},
    )


def counted(names: Iterable[str]) -> dict[str, int]:
    """How many heads, and layers in a head: the two numbers in the name of every linear layer, in either spelling."""
    parts = [name.split(".") for name in names if ".linear." in name or ".layers." in name]
    numbers = {tuple(part for part in name if part.isdigit()) for name in parts}
    pairs = [pair for pair in numbers if len(pair) == 2]
    return {"heads": len({head for head, _ in pairs}), "layers": len({layer for _, layer in pairs})}


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    """Which table the tensors follow. Only a unified config states sizes: then the tensors must have them."""
    if not is_unified(checkpoint):
        return Layout(table=published(counted(checkpoint)["layers"]), sizes={})
    stated = Facts.of(checkpoint).require({"hidden_size": int, "vocab_size": int})
    hidden, vocabulary = (Known(size, "config.json") for size in stated.values())
    return Layout(table=UNIFIED, sizes={"hidden": hidden, "vocabulary": vocabulary})


def describe(draft: Draft) -> Described:
    facts, hidden, vocabulary = Facts.of(draft.checkpoint), draft.mapped.size("hidden"), draft.mapped.size("vocabulary")
    heads, layers = counted(draft.mapped.targets).values()
    base, findings = envelope(draft, facts, model_type=TYPE, architecture="MedusaModel", width=hidden, proposed=heads)
    own = {
        "model_type": TYPE,
        "num_heads": heads,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "vocab_size": vocabulary,
        "truncated_vocab_size": vocabulary,
        "medusa_fc_bias": True,
        "original_lm_head": False,
    }
    said = {"medusa_num_heads": heads, "medusa_num_layers": layers, "num_heads": heads, "num_hidden_layers": layers}
    return Described(config=base | own, findings=(*findings, *miscounted(facts, said)))


def miscounted(facts: Facts, in_file: Mapping[str, int]) -> list[Finding]:
    return [
        found("layer-count-differs", where=facts.where, message=f"says {key} {facts.get(key)}, the file holds {number}")
        for key, number in in_file.items()
        if facts.has(key) and facts.get(key) != number
    ]


@cache
def config_model() -> type[BaseModel]:
    """What vLLM's own Medusa reads, and the envelope. In a function: `spec-convert --help` needs no pydantic."""
    from typing import Literal

    from pydantic import model_validator

    from spec_convert.unified import Envelope, Positive

    class MedusaConfig(Envelope):
        speculators_model_type: Literal["medusa"]
        model_type: Literal["medusa"]
        num_heads: Positive
        num_hidden_layers: Positive
        hidden_size: Positive
        vocab_size: Positive
        truncated_vocab_size: Positive
        medusa_fc_bias: Literal[True]
        original_lm_head: Literal[False]

        @model_validator(mode="after")
        def _agree(self) -> MedusaConfig:
            tokens = self.speculators_config.proposal_methods[0].speculative_tokens
            if tokens > self.num_heads:
                raise ValueError(f"{self.num_heads} heads propose {self.num_heads} tokens, not {tokens}")
            return self

    return MedusaConfig


def logits(config: Any, tensors: Mapping[str, torch.Tensor], states: torch.Tensor) -> torch.Tensor:
    """Of every head, for every one of the verifier's states."""
    import torch
    from torch.nn.functional import linear, silu

    said = []
    for head in range(config.num_heads):
        x = states
        for layer in range(config.num_hidden_layers):
            name = f"blocks.{head}.layers.{layer}"
            x = x + silu(linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"]))
        said.append(linear(x, tensors[f"lm_heads.{head}.weight"]))
    return torch.stack(said)


def trial(config: Any, tensors: Mapping[str, torch.Tensor], random: torch.Generator) -> torch.Tensor:
    import torch

    return logits(config, tensors, torch.randn(4, config.hidden_size, generator=random))


MEDUSA = UnifiedType(name=TYPE, config=config_model, trial=trial)


def example(sizes: Sizes) -> Example:
    """What tests are made of: three heads, as the authors publish them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for head in range(3):
        for layer in range(sizes.layers):
            shapes[f"{head}.{layer}.linear.weight"] = (sizes.hidden, sizes.hidden)
            shapes[f"{head}.{layer}.linear.bias"] = (sizes.hidden,)
        shapes[f"{head}.{sizes.layers}.weight"] = (sizes.vocabulary, sizes.hidden)
    config = {"medusa_num_heads": 3, "medusa_num_layers": sizes.layers, "base_model_name_or_path": "lmsys/vicuna-7b"}
    return Example(config=config, shapes=shapes, file="medusa_lm_head.safetensors")


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [
        Format(
            name="medusa",
            title="Medusa heads",
            reference="https://github.com/FasterDecoding/Medusa",
            produces=TYPE,
            tables={"as published": published(layers=1), "unified": UNIFIED},
            recognise=recognise,
            features=counted,
            layout=layout,
            describe=describe,
            own_type=MEDUSA,
            is_unified=is_unified,
            example=example,
        )
    ]
