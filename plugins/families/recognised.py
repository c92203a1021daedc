"""Layouts that are recognised and not converted, as data: by which signs, why, and what to type instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes, shapes_of
from spec_convert.formats import Described, Draft, Format, Layout, Request, Unconverted
from spec_convert.plugins.families import llama
from spec_convert.tensor_map import TensorMap, keep

# Parts of names that only heads inside a target have: whoever knows those decides.
INSIDE_A_TARGET = ("mtp", "mtp_layers", "mtp_block", "eh_proj")


@dataclass(frozen=True, kw_only=True)
class Signs:
    """What tells a layout. All of it must hold; of several ``architectures`` one."""

    architectures: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()  # of config.json
    no_keys: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()  # by their whole names
    square: tuple[str, ...] = ()  # matrices as wide as high
    parts: tuple[str, ...] = ()  # between two dots of some tensor's name
    without: tuple[str, ...] = ()

    def statements(self, checkpoint: Checkpoint) -> dict[str, bool]:
        """In words, and whether each holds."""
        said: dict[str, bool] = {}
        if self.architectures:
            said[f"the architecture {' or '.join(self.architectures)}"] = checkpoint.architecture in self.architectures
        said |= {f"`{key}` in config.json": checkpoint.get(key) is not None for key in self.keys}
        said |= {f"no `{key}` in config.json": checkpoint.get(key) is None for key in self.no_keys}
        said |= {f"a tensor `{name}`": name in checkpoint for name in self.tensors}
        said |= {f"a matrix `{name}` as wide as high": _is_square(checkpoint.shape(name)) for name in self.square}
        said |= {f"tensors of `{part}`": part in checkpoint.parts for part in self.parts}
        if self.without:
            names = ", ".join(f"`{part}`" for part in self.without)
            said[f"no tensors of {names}"] = checkpoint.parts.isdisjoint(self.without)
        return said | {llama.NOT_UNIFIED: not llama.is_unified(checkpoint)}


def _is_square(shape: tuple[int, ...] | None) -> bool:
    return shape is not None and len(shape) == 2 and shape[0] == shape[1]


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """One such layout. ``signs``: the ways in which it is published, any one of them."""

    name: str
    title: str
    reference: str
    signs: tuple[Signs, ...]
    because: str
    instead: str
    served: bool = False
    config: Mapping[str, Any]  # of a tiny checkpoint; text that names a field of `Sizes` is that size
    shapes: Mapping[str, str]  # its tensors, with shape laws in these names
    file: str = "model.safetensors"

    def format(self, story: str) -> Format:
        """The layout as detection asks for it. ``story``: of the file that it stands in."""
        unconverted = Unconverted(because=self.because, instead=self.instead, served=self.served)
        return Format(
            name=self.name, title=self.title, reference=self.reference, produces="", tables={},
            recognise=partial(_recognise, self.signs), features=_features, layout=partial(_refuse, unconverted),
            describe=never, unconverted=unconverted, story=story, example=partial(_example, self),
        )  # fmt: skip


def _recognise(signs: tuple[Signs, ...], checkpoint: Checkpoint) -> Evidence:
    ways = [weigh(required=each.statements(checkpoint)) for each in signs]
    return max(ways, key=lambda said: (said.confidence, said.nearness))


def _features(checkpoint: Checkpoint) -> dict[str, Any]:
    wanted = ("model_type", "hidden_size", "vocab_size")
    return {key: checkpoint.get(key) for key in wanted if checkpoint.get(key) is not None}


def _refuse(unconverted: Unconverted, checkpoint: Checkpoint, request: Request) -> Layout:
    raise Refused([unconverted.finding(checkpoint)])


def never(draft: Draft) -> Described:
    """For `Format.describe`, which is not reached."""
    raise AssertionError("a layout that was refused is not described")


def _example(layout: Recognised, sizes: Sizes) -> Example:
    rows = TensorMap(*(keep(name, shape=law) for name, law in layout.shapes.items()))
    known = vars(sizes)
    config = {key: known.get(value, value) if isinstance(value, str) else value for key, value in layout.config.items()}
    return Example(config=config, shapes=shapes_of(rows, sizes), file=layout.file)


def vllm(method: str, **more: Any) -> str:
    """The command with which vLLM serves the checkpoint beside its verifier BASE."""
    speculative = {"method": method, "model": "SOURCE", "num_speculative_tokens": 3, **more}
    return f"`vllm serve BASE --speculative-config '{json.dumps(speculative)}'`"
