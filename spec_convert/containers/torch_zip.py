"""Torch's zip container: `data.pkl` describes the tensors, `data/KEY` holds each storage as it is in memory."""

from __future__ import annotations

import zipfile
from struct import error as StructError
from typing import BinaryIO, cast

from spec_convert.containers.refusal import damaged
from spec_convert.containers.state_dict import find_views
from spec_convert.containers.torch_objects import Storage, place, read_object
from spec_convert.tensor import Tensor

LOCAL_HEADER = 30
ENCRYPTED = 0x1
UTF8 = 0x800
MAX_DIRECTORY = 4_000_000  # 100 bytes an entry: four times as many tensors as the longest pickle describes


def read_torch_zip(stream: BinaryIO, *, file: str, size: int) -> dict[str, Tensor]:
    entries = _entries(stream, file)
    root = _root(entries, file)
    _check_byteorder(stream, entries.get(f"{root}/byteorder"), file, size)
    pickled = entries[f"{root}/data.pkl"]
    start = _payload(stream, pickled, file, size)
    value, _, _ = read_object(stream, file=file, start=start, most=pickled.file_size)
    views = find_views(value, file=file)
    starts: dict[str, int] = {}
    stored = {view.storage.key: view.storage for view in views.values()}
    for key, storage in stored.items():
        starts[key] = _storage_start(stream, entries.get(f"{root}/data/{key}"), storage, file, size)
    _check_apart([(starts[key], stored[key]) for key in starts], file)
    return place(views, starts, file=file, size=size)


def _check_apart(storages: list[tuple[int, Storage]], file: str) -> None:
    """Tied weights share one storage: two that share bytes are the work of somebody who hides or multiplies data."""
    reached = 0
    for start, storage in sorted(storages, key=lambda placed: placed[0]):
        if start < reached and storage.nbytes:
            raise damaged(file, f"storage {storage.key} overlaps the one before it")
        reached = max(reached, start + storage.nbytes)


def _entries(stream: BinaryIO, file: str) -> dict[str, zipfile.ZipInfo]:
    try:
        listed = zipfile.ZipFile(cast("BinaryIO", _Bounded(stream))).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, StructError) as error:
        raise damaged(file, f"its zip directory is damaged: {error}") from error
    entries = {entry.filename: entry for entry in listed}
    if len(entries) != len(listed):
        raise damaged(file, "its zip directory has a name twice")
    return entries


class _Bounded:
    """The stream, without reads as long as a directory that is meant to exhaust this machine."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, count: int = -1) -> bytes:
        if count > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"it has {count} bytes")
        return self._stream.read(count if count >= 0 else MAX_DIRECTORY)


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
    if not 0 <= entry.header_offset < size:  # below 0: bytes are missing before the directory
        raise damaged(file, f"{entry.filename} begins outside the file")
    stream.seek(entry.header_offset)
    header = stream.read(LOCAL_HEADER)
    if len(header) < LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise damaged(file, f"{entry.filename} is not where the zip directory says")
    method, name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (8, 26, 28))
    if method != zipfile.ZIP_STORED or stream.read(name) != _raw_name(entry):
        raise damaged(file, f"{entry.filename} is another entry where it lies than in the zip directory")
    start = entry.header_offset + LOCAL_HEADER + name + extra
    if start + entry.file_size > size:
        raise damaged(file, f"{entry.filename} ends after the file")
    return start


def _raw_name(entry: zipfile.ZipInfo) -> bytes:
    return entry.orig_filename.encode("utf-8" if entry.flag_bits & UTF8 else "cp437")
