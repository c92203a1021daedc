"""What the author of a format gives so that a tiny checkpoint of it can be made: a config, shapes, a few values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a tiny checkpoint. All different, and heads * head_dim is not hidden: a transposed matrix shows."""

    hidden: int = 16
    inner: int = 40
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 6
    vocabulary: int = 32
    draft_vocabulary: int = 20
    layers: int = 1
    verifier_layers: int = 8


@dataclass(frozen=True, kw_only=True)
class Example:
    """One checkpoint of a format: config.json, the shapes of its weights, and the values of its vocabulary maps.

    Weights are filled with random numbers; ``values`` are stored as they are (whole numbers as int64, truth values as
    bool). ``file`` is how such checkpoints call their weight file.
    """

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, Sequence[int] | Sequence[bool]] = field(default_factory=dict)
    file: str = "model.safetensors"
