"""Safetensors headers: eight bytes of length, a JSON object, then the bytes of the tensors without gap or overlap."""

from __future__ import annotations

from math import prod
from typing import Any, BinaryIO

from spec_convert.containers.refusal import AGAIN, damaged
from spec_convert.containers.shapes import check_name, check_shape
from spec_convert.containers.strict_json import MAX_LENGTH, parse_object
from spec_convert.tensor import BITS, Tensor


def read_safetensors(stream: BinaryIO, *, file: str, size: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, and what the writer said of the file."""
    header, data = _header(stream, file, size)
    metadata = _metadata(header.pop("__metadata__", None), file)
    tensors = {}
    ranges = []
    for name, entry in header.items():
        check_name(name, file)
        begin, end = _range(name, entry, file)
        tensor = Tensor(
            name=name,
            dtype=_dtype(name, entry, file),
            shape=check_shape(name, entry.get("shape"), file),
            file=file,
            start=data + begin,
        )
        _check_bytes(tensor, end - begin)
        ranges.append((begin, end, name))
        tensors[name] = tensor
    _check_cover(ranges, size - data, file)
    return tensors, metadata


def _header(stream: BinaryIO, file: str, size: int) -> tuple[dict[str, Any], int]:
    """The JSON object and the offset at which the data begins."""
    stream.seek(0)
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > size - 8:
        raise damaged(file, f"announces a header of {length} bytes, but the file has {size} bytes")
    if length > MAX_LENGTH:
        raise damaged(file, f"announces a header of {length} bytes; no file needs more than {MAX_LENGTH}")
    raw = stream.read(length)
    if len(raw) != length:
        raise damaged(file, "ends inside its header")
    return parse_object(raw, where=f"header of {file}", rule="unreadable-container", hint=AGAIN), 8 + length


def _metadata(metadata: Any, file: str) -> dict[str, str]:
    """The library that servers use opens no file with anything else in its place."""
    sound = isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values())
    if metadata is not None and not sound:
        raise damaged(file, "has a __metadata__ that does not map text to text")
    return metadata or {}


def _range(name: str, entry: Any, file: str) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(offset) is not int for offset in offsets):
        raise damaged(file, f"{name} has no data_offsets [begin, end]")
    begin, end = offsets
    if not 0 <= begin <= end:
        raise damaged(file, f"{name} has the impossible data_offsets [{begin}, {end}]")
    return begin, end


def _dtype(name: str, entry: dict[str, Any], file: str) -> str:
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise damaged(file, f"{name} has the unknown dtype {dtype!r}", f"Known dtypes: {', '.join(BITS)}.")
    return dtype


def _check_bytes(tensor: Tensor, length: int) -> None:
    bits = prod(tensor.shape) * BITS[tensor.dtype]
    if bits != length * 8:
        shape = f"{tensor.name} is {tensor.dtype} {list(tensor.shape)}, {bits / 8:g} bytes"
        raise damaged(tensor.file, f"{shape}, but its data_offsets span {length} bytes")


def _check_cover(ranges: list[tuple[int, int, str]], length: int, file: str) -> None:
    """Every byte of the data belongs to exactly one tensor: nothing can hide, nothing is read twice."""
    reached = 0
    for begin, end, name in sorted(ranges):
        if end > length:
            raise damaged(file, f"is cut short: {name} ends at byte {end} of the data, which has {length}")
        if begin < reached:
            raise damaged(file, f"{name} overlaps the tensor before it")
        if begin > reached:
            raise damaged(file, f"{begin - reached} bytes before {name} belong to no tensor")
        reached = end
    if reached != length:
        raise damaged(file, f"{length - reached} bytes at the end belong to no tensor")
