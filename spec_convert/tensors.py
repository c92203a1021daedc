"""Looking at weights without keeping them: tensors in blocks, and what is wrong with their numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, BinaryIO

from spec_convert.bytes import NUMPY, read_tensor
from spec_convert.containers.refusal import damaged
from spec_convert.findings import Finding
from spec_convert.rules import found
from spec_convert.tensor import BITS, FLOATS, Files, Tensor

if TYPE_CHECKING:
    import numpy as np

CHUNK = 1 << 20
# A float is not finite exactly when its exponent bits are all ones: the magnitude bits, and the first such number.
_MAGNITUDE = {
    "F64": (0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    "F32": (0x7FFF_FFFF, 0x7F80_0000),
    "BF16": (0x7FFF, 0x7F80),
    "F16": (0x7FFF, 0x7C00),
}
_HOLE = "the file has a hole or the tensor was never trained: take another checkpoint of this run"
_LAYER = re.compile(r".*?\b(?:layers\.\d+|midlayer)\.(?=self_attn\.|mlp\.)")
_NORM = re.compile(r"norm(\.\d+)?\.weight\Z")
_GLANCE = 64  # elements that tell of almost every tensor that it is not constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What one pass over a float tensor tells. ``not_finite`` is the first such element in storage order."""

    not_finite: int | None = None
    zero: bool = False
    constant: bool = False


def check_finite(files: Files, tensors: Iterable[Tensor]) -> Iterator[Finding]:
    """A finding for each float tensor that holds a NaN or an infinity. Raises Unreadable like ``blocks``."""
    return (finding for finding in check_numbers(files, tensors) if finding.rule == "not-finite")


def check_numbers(files: Files, tensors: Iterable[Tensor], *, may_idle: bool = False) -> Iterator[Finding]:
    """`check_finite`, and a finding for each weight that switches something off: one number throughout, or zeros.

    Norms of ones and biases of zeros are usual. ``may_idle``: whether a layer of zeros can be meant.
    """
    weights: dict[str, Numbers] = {}
    for tensor in tensors:
        if tensor.dtype not in FLOATS:
            continue
        seen = look(files, tensor)
        if seen.not_finite is not None:
            yield found(
                "not-finite", where=tensor.name, message=f"holds a NaN or an infinity (element {seen.not_finite})",
                hint="training diverged or the file is damaged: take another checkpoint of this run",
            )  # fmt: skip
        elif seen.constant and not seen.zero and _is_matrix(tensor):
            message = f"all {prod(tensor.shape)} numbers are the same"
            yield found("constant-matrix", where=tensor.name, message=message, hint=_HOLE)
        if _is_matrix(tensor) or _NORM.search(tensor.name):
            weights[tensor.name] = seen
    yield from _zeros(weights, may_idle=may_idle)


def _zeros(weights: Mapping[str, Numbers], *, may_idle: bool) -> Iterator[Finding]:
    """A layer in which every matrix is zero may do nothing by intention; one among others is a hole."""
    layers: dict[str, list[str]] = {}
    for name in weights if may_idle else ():
        if inside := _LAYER.match(name):
            layers.setdefault(inside[0].rstrip("."), []).append(name)
    idle = {layer: names for layer, names in layers.items() if all(weights[name].zero for name in names)}
    for layer in idle:
        yield found("idle-layer", where=layer, message="every matrix of it is zero")
    explained = {name for names in idle.values() for name in names}
    for name, seen in weights.items():
        if seen.zero and name not in explained:
            yield found("all-zero", where=name, message="all of its numbers are zero", hint=_HOLE)


def _is_matrix(tensor: Tensor) -> bool:
    return sum(size > 1 for size in tensor.shape) >= 2


def look(files: Files, tensor: Tensor) -> Numbers:
    """One pass over a float tensor, up to the first number that is not finite. Raises Unreadable like ``blocks``."""
    import numpy as np

    magnitude, limit = _MAGNITUDE[tensor.dtype]
    integer = np.dtype(f"<u{BITS[tensor.dtype] // 8}")
    scratch = np.empty(CHUNK // integer.itemsize, dtype=integer)
    first, constant, largest, done = None, True, 0, 0
    for block in blocks(files, tensor):
        values = block.view(integer)
        bits = np.bitwise_and(values, integer.type(magnitude), out=scratch[: values.size])
        largest = max(largest, int(bits.max()))
        if largest >= limit:
            return Numbers(not_finite=done + int(np.argmax(bits >= limit)))
        if constant:
            first = values[0] if first is None else first
            constant = bool((values[:_GLANCE] == first).all() and (values == first).all())
        done += values.size
    return Numbers(zero=bool(done) and largest == 0, constant=bool(done) and constant)


def blocks(files: Files, tensor: Tensor) -> Iterator[np.ndarray]:
    """The elements of a tensor in storage order, flat, a megabyte at a time; each block is valid until the next.

    What lies between the elements of a strided view is read and left out. Raises Unreadable when the file ends early.
    """
    strides = tensor.strides if tensor.strides is not None else (1,)
    sizes = tensor.shape if tensor.strides is not None else (prod(tensor.shape),)
    if not all(sizes):
        return
    # A dimension with stride 0 repeats the same elements.
    steps = sorted((stride, size) for stride, size in zip(strides, sizes, strict=True) if stride and size > 1)
    with files.open(tensor.file) as stream:
        for block in _Reader(stream, tensor).walk(0, steps[::-1] or [(1, 1)]):
            yield block.reshape(-1)


def row_blocks(files: Files, tensor: Tensor, rows: int) -> Iterator[np.ndarray]:
    """The rows of a matrix in order, ``rows`` at a time (the last block may have fewer), valid until the next.

    Raises Unreadable when the file ends early.
    """
    count, width = tensor.shape
    pitch, step = tensor.strides if tensor.strides is not None else (width, 1)
    if pitch < step:  # stored by columns: only torch files can, and hardly any does
        matrix = read_tensor(files, tensor)
        yield from (matrix[start : start + rows] for start in range(0, count, rows))
        return
    with files.open(tensor.file) as stream:
        reader = _Reader(stream, tensor)
        for start in range(0, count, rows):
            yield reader.read(start * pitch, [(pitch, min(rows, count - start)), (step, width)])


class _Reader:
    """Reads parts of one tensor into one buffer. Steps are (stride in elements, how many), the widest first."""

    def __init__(self, stream: BinaryIO, tensor: Tensor) -> None:
        import numpy as np

        self._stream, self._tensor = stream, tensor
        self._dtype = np.dtype(NUMPY[tensor.dtype])
        self._limit = CHUNK // self._dtype.itemsize
        self._buffer = np.empty(0, dtype=self._dtype)
        self._at = -1  # where the stream stands: blocks that follow each other need no seeking

    def walk(self, start: int, steps: list[tuple[int, int]]) -> Iterator[np.ndarray]:
        """All elements of these steps, in parts that lie within one chunk of the file."""
        (stride, size), inner = steps[0], steps[1:]
        span = _span(inner)
        if span > self._limit:
            for number in range(size):
                yield from self.walk(start + number * stride, inner)
            return
        most = (self._limit - span) // stride + 1
        for number in range(0, size, most):
            yield self.read(start + number * stride, [(stride, min(most, size - number)), *inner])

    def read(self, start: int, steps: list[tuple[int, int]]) -> np.ndarray:
        """The elements of these steps as an array of as many dimensions."""
        import numpy as np

        span = _span(steps)
        if self._buffer.size < span:
            self._buffer = np.empty(max(span, min(self._limit, prod(self._tensor.shape))), dtype=self._dtype)
        values = self._buffer[:span]
        begin = self._tensor.start + start * self._dtype.itemsize
        if begin != self._at:
            self._stream.seek(begin)
        self._at = begin + values.nbytes
        if self._stream.readinto(values.view(np.uint8)) != values.nbytes:  # type: ignore[attr-defined]
            raise damaged(self._tensor.file, f"ends inside {self._tensor.name}")
        if len(steps) == 1 and steps[0][0] == 1:
            return values
        bytes_apart = [stride * self._dtype.itemsize for stride, _ in steps]
        return np.lib.stride_tricks.as_strided(values, [size for _, size in steps], bytes_apart, writeable=False)


def _span(steps: list[tuple[int, int]]) -> int:
    """Elements between the first and the last, both included."""
    return 1 + sum((size - 1) * stride for stride, size in steps)
