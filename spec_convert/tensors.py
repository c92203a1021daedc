"""Looking at weights without keeping them: are all numbers finite. Streams, so memory stays flat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from spec_convert.bytes import NUMPY, span
from spec_convert.containers.refusal import damaged
from spec_convert.findings import Finding
from spec_convert.rules import found
from spec_convert.tensor import FLOATS, Files, Tensor

CHUNK = 1 << 20
# A float is not finite exactly when its exponent bits are all ones: the magnitude bits, and the first such number.
_MAGNITUDE = {
    "F64": (0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    "F32": (0x7FFF_FFFF, 0x7F80_0000),
    "BF16": (0x7FFF, 0x7F80),
    "F16": (0x7FFF, 0x7C00),
}


def check_finite(files: Files, tensors: Iterable[Tensor]) -> Iterator[Finding]:
    """A finding for each float tensor that holds a NaN or an infinity."""
    for tensor in tensors:
        if tensor.dtype in FLOATS and (position := first_not_finite(files, tensor)) is not None:
            yield found(
                "not-finite", where=tensor.name, message=f"holds a NaN or an infinity (element {position})",
                hint="training diverged or the file is damaged: take another checkpoint of this run",
            )  # fmt: skip


def first_not_finite(files: Files, tensor: Tensor) -> int | None:
    """The first element (in storage order) that is NaN or infinite, or None. Raises Unreadable like ``read_tensor``."""
    import numpy as np

    magnitude, limit = _MAGNITUDE[tensor.dtype]
    integer = np.dtype(f"<u{np.dtype(NUMPY[tensor.dtype]).itemsize}")
    buffer = np.empty(CHUNK // integer.itemsize, dtype=integer)
    scratch = np.empty_like(buffer)
    remaining, done = span(tensor), 0
    with files.open(tensor.file) as stream:
        stream.seek(tensor.start)
        while remaining:
            count = min(remaining, CHUNK) // integer.itemsize
            values = buffer[:count]
            if stream.readinto(values.view(np.uint8)) != values.nbytes:  # type: ignore[attr-defined]
                raise damaged(tensor.file, f"ends inside {tensor.name}")
            bits = np.bitwise_and(values, integer.type(magnitude), out=scratch[:count])
            if bits.max() >= limit:
                return done + int(np.argmax(bits >= limit))
            remaining -= values.nbytes
            done += count
    return None
