"""Torch before 1.6: five pickles in a row (magic, version, machine, object, storage keys), then the raw storages."""

from __future__ import annotations

from typing import Any, BinaryIO

from spec_convert.containers.pickle_reader import Args, read_pickle
from spec_convert.containers.refusal import damaged
from spec_convert.containers.state_dict import SAVE, find_views
from spec_convert.containers.torch_objects import Storage, place, read_object
from spec_convert.tensor import Tensor

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001


def read_torch_legacy(stream: BinaryIO, *, file: str, size: int) -> dict[str, Tensor]:
    magic, end = _plain(stream, file, 0)
    if magic != MAGIC:
        raise damaged(file, "is a pickle, but not one that torch.save wrote", SAVE)
    version, end = _plain(stream, file, end)
    machine, end = _plain(stream, file, end)
    if version != VERSION or not isinstance(machine, dict):
        raise damaged(file, "has an unknown version of the legacy torch format")
    if machine.get("little_endian") is not True:
        raise damaged(file, "was not written on a little-endian machine", "Save it again on one.")
    value, storages, end = read_object(stream, file=file, start=end)
    keys, end = _plain(stream, file, end)
    views = find_views(value, file=file)
    starts = _starts(stream, _in_order(keys, storages, file), file=file, size=size, at=end)
    return place(views, starts, file=file, size=size)


def _plain(stream: BinaryIO, file: str, start: int) -> tuple[Any, int]:
    """A pickle of numbers and text only."""
    return read_pickle(stream, file=file, start=start, calls={}, persistent=_no_storage)


def _no_storage(_saved: Args) -> object:
    raise ValueError("a storage where none belongs")


def _in_order(keys: object, storages: dict[str, Storage], file: str) -> list[Storage]:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise damaged(file, "has no list of storages")
    if len(keys) != len(storages) or set(keys) != storages.keys():
        raise damaged(file, "lists other storages than its tensors use")
    return [storages[key] for key in keys]


def _starts(stream: BinaryIO, storages: list[Storage], *, file: str, size: int, at: int) -> dict[str, int]:
    """Each storage is its number of elements in eight bytes, then the elements."""
    starts = {}
    for storage in storages:
        stream.seek(at)
        count = int.from_bytes(stream.read(8), "little")
        if count != storage.count:
            raise damaged(file, f"storage {storage.key} has {count} elements instead of {storage.count}")
        starts[storage.key] = at + 8
        at += 8 + storage.nbytes
        if at > size:
            raise damaged(file, f"is cut short inside storage {storage.key}")
    if at != size:
        raise damaged(file, f"{size - at} bytes at the end belong to no storage")
    return starts
