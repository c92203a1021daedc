"""Reading the bytes of one tensor, as a numpy array, from wherever its checkpoint lives."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from spec_convert.containers.refusal import damaged
from spec_convert.tensor import BITS, Files, Tensor

if TYPE_CHECKING:
    import numpy as np

# bfloat16 and the 8-bit floats have no numpy type: they travel as the unsigned integers of their bits.
NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E8M0": "u1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
    "BOOL": "?",
}  # fmt: skip


def read_tensor(files: Files, tensor: Tensor) -> np.ndarray:
    """The tensor's values, row-major, shape ``tensor.shape``. Raises Unreadable when the file ends before them."""
    import numpy as np

    with files.open(tensor.file) as stream:
        stream.seek(tensor.start)
        raw = stream.read(span(tensor))
    if len(raw) != span(tensor):
        raise damaged(tensor.file, f"ends inside {tensor.name}")
    flat = np.frombuffer(raw, dtype=NUMPY[tensor.dtype])
    if tensor.strides is None:
        return flat.reshape(tensor.shape)
    steps = [stride * flat.itemsize for stride in tensor.strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, tensor.shape, steps))


def span(tensor: Tensor) -> int:
    """Bytes between the first and the last element, both included: more than ``nbytes`` for strided views."""
    if tensor.strides is None or not prod(tensor.shape):
        return tensor.nbytes
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    return (last + 1) * BITS[tensor.dtype] // 8
