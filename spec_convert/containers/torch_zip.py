"""Torch's zip container: `data.pkl` describes the tensors, `data/KEY` holds each storage as it is in memory."""

from __future__ import annotations

import zipfile
from struct import error as StructError
from typing import BinaryIO

from spec_convert.containers.refusal import damaged
from spec_convert.containers.state_dict import find_views
from spec_convert.containers.torch_objects import Storage, place, read_object
from spec_convert.tensor import Tensor

LOCAL_HEADER = 30
ENCRYPTED = 0x1


def read_torch_zip(stream: BinaryIO, *, file: str, size: int) -> dict[str, Tensor]:
    entries = _entries(stream, file)
    root = _root(entries, file)
    _check_byteorder(stream, entries.get(f"{root}/byteorder"), file, size)
    start = _payload(stream, entries[f"{root}/data.pkl"], file, size)
    value, _, end = read_object(stream, file=file, start=start)
    if end > start + entries[f"{root}/data.pkl"].file_size:
        raise damaged(file, "data.pkl runs past its end")
    views = find_views(value, file=file)
    starts: dict[str, int] = {}
    for view in views.values():
        if view.storage.key not in starts:
            entry = entries.get(f"{root}/data/{view.storage.key}")
            starts[view.storage.key] = _storage_start(stream, entry, view.storage, file, size)
    return place(views, starts, file=file, size=size)


def _entries(stream: BinaryIO, file: str) -> dict[str, zipfile.ZipInfo]:
    try:
        listed = zipfile.ZipFile(stream).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, StructError) as error:
        raise damaged(file, f"its zip directory is damaged: {error}") from error
    entries = {entry.filename: entry for entry in listed}
    if len(entries) != len(listed):
        raise damaged(file, "its zip directory has a name twice")
    return entries


def _root(entries: dict[str, zipfile.ZipInfo], file: str) -> str:
    """The folder inside the archive; torch.save names it after the file."""
    roots = [name.removesuffix("/data.pkl") for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise damaged(file, "is a zip archive, but none that torch.save wrote", "Unpack it, if it holds the weights.")
    if f"{roots[0]}/constants.pkl" in entries:
        raise damaged(file, "is a TorchScript program, not weights", "Save the state dict of the module instead.")
    return roots[0]


def _check_byteorder(stream: BinaryIO, entry: zipfile.ZipInfo | None, file: str, size: int) -> None:
    if entry is None:  # torch before 2.1 did not write it
        return
    stream.seek(_payload(stream, entry, file, size))
    order = stream.read(min(entry.file_size, 16))
    if order != b"little":
        raise damaged(file, f"has byte order {order!a}, not little", "Save it again on a little-endian machine.")


def _storage_start(stream: BinaryIO, entry: zipfile.ZipInfo | None, storage: Storage, file: str, size: int) -> int:
    if entry is None:
        raise damaged(file, f"storage {storage.key} is missing")
    if entry.file_size < storage.nbytes:
        raise damaged(file, f"storage {storage.key} has {entry.file_size} bytes instead of {storage.nbytes}")
    return _payload(stream, entry, file, size)


def _payload(stream: BinaryIO, entry: zipfile.ZipInfo, file: str, size: int) -> int:
    """Where the bytes of an entry begin: after its local header, whose length only itself says."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED:
        raise damaged(file, f"{entry.filename} is compressed or encrypted; torch.save stores entries as they are")
    if entry.header_offset < 0:  # bytes are missing before the directory
        raise damaged(file, f"{entry.filename} begins before the file")
    stream.seek(entry.header_offset)
    header = stream.read(LOCAL_HEADER)
    if len(header) < LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise damaged(file, f"{entry.filename} is not where the zip directory says")
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    start = entry.header_offset + LOCAL_HEADER + name + extra
    if start + entry.file_size > size:
        raise damaged(file, f"{entry.filename} ends after the file")
    return start
