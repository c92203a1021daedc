"""A tensor as its file declares it, and where the bytes of that file come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO, Protocol

# The dtype codes of the safetensors format, and the bits of one element.
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


class Files(Protocol):
    """Where the bytes of a checkpoint come from: a folder, one file, or a Hub repository at one commit."""

    @property
    def label(self) -> str:
        """The source as messages name it, e.g. ``yuhuili/EAGLE3-LLaMA3.1-Instruct-8B@9b1f2c``."""

    @property
    def revision(self) -> str | None:
        """The commit on the Hub, or None for local files."""

    def sizes(self) -> Mapping[str, int]:
        """Size in bytes of every file, by its name relative to the root. Subfolders are not listed."""

    def open(self, name: str) -> BinaryIO:
        """A seekable stream of one file. Remote files are read by HTTP range, never downloaded whole."""

    def path(self, name: str) -> Path:
        """The file on this machine, downloaded first when it is remote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One tensor as its file declares it.

    ``start`` is the offset of the first byte in ``file``; ``nbytes`` the size of the dense tensor. ``strides`` (in
    elements) is None for the usual row-major layout; only torch files can hold anything else.
    Two tensors with the same ``file`` and ``start`` share their storage (tied weights).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    strides: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        return (prod(self.shape) * BITS[self.dtype] + 7) // 8
