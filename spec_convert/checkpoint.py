"""A checkpoint seen without reading its weights: files, names, shapes, dtypes, byte ranges and config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from spec_convert.bytes import read_tensor
from spec_convert.tensor import Files, Tensor

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A draft (or verifier) checkpoint, headers only. ``metadata`` is what its writer put into a safetensors header."""

    source: str
    files: Files
    config: Mapping[str, Any] | None
    tensors: Mapping[str, Tensor]
    container: str
    weight_files: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    @cached_property
    def parts(self) -> frozenset[str]:
        """Every part of a tensor's name between two dots: `fc`, `layers`, `0`, `weight`, …"""
        return frozenset(part for name in self.tensors for part in name.split("."))

    def shape(self, name: str) -> tuple[int, ...] | None:
        tensor = self.tensors.get(name)
        return tensor.shape if tensor else None

    def get(self, key: str) -> Any:
        """A value of config.json, or None when the key or the whole file is absent."""
        return self.config.get(key) if self.config else None

    @property
    def architecture(self) -> str:
        """The first of config.json's `architectures`, or "" when there is none. Some write plain text, not a list."""
        names = self.get("architectures")
        first = names[0] if isinstance(names, list) and names else names
        return first if isinstance(first, str) else ""

    def read(self, name: str) -> np.ndarray:
        """The values of one tensor, row-major. For small tensors (vocabulary maps) and for operations."""
        return read_tensor(self.files, self.tensors[name])
