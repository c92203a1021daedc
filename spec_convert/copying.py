"""Bytes of a checkpoint on their way into a file: where each output tensor lies, and how it gets over unread.

Almost every output is a piece of its sources or several of them in a row, so nothing of it is ever held in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spec_convert.checkpoint import Checkpoint
from spec_convert.containers.refusal import damaged
from spec_convert.operations import only_cuts
from spec_convert.tensor import Files
from spec_convert.tensors import CHUNK

if TYPE_CHECKING:
    from spec_convert.mapping import Step

REMOTE_CHUNK = 16 * CHUNK  # every block of a remote file is a request


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes [start, stop) of one file, and the tensor that messages name for them."""

    file: str
    start: int
    stop: int
    tensor: str


def pieces(step: Step, name: str, checkpoint: Checkpoint) -> list[Piece] | None:
    """Where the bytes of the output ``name`` lie, in order; None when they have to be computed."""
    sources = [checkpoint.tensors[source] for source in step.sources]
    if not only_cuts(step.via) or any(source.strides is not None for source in sources):
        return None
    skip = wanted = 0
    for target, header in step.targets:
        if target == name:
            wanted = header.nbytes
            break
        skip += header.nbytes
    found = []
    for source in sources:
        taken = min(max(source.nbytes - skip, 0), wanted)
        if taken:
            start = source.start + skip
            found.append(Piece(source.file, start, start + taken, source.name))
        skip, wanted = max(skip - source.nbytes, 0), wanted - taken
    return found


@dataclass
class Opened:
    """The files of a checkpoint, open to be copied from. What is on the Hub alone is read by range."""

    files: Files
    downloaded: bool
    _descriptors: dict[str, int] = field(default_factory=dict)

    def copy(self, piece: Piece, target: int) -> None:
        """Write a piece where ``target`` stands. Raises Unreadable when the file ends before it does."""
        if self.downloaded:
            _copy_range(self._descriptor(piece.file), target, piece)
            return
        for block in blocks(self.files, piece):
            write_all(target, block)

    def _descriptor(self, name: str) -> int:
        if name not in self._descriptors:
            self._descriptors[name] = os.open(self.files.path(name), os.O_RDONLY)
        return self._descriptors[name]

    def close(self) -> None:
        for number in self._descriptors.values():
            os.close(number)


@contextmanager
def opened(files: Files, *, downloaded: bool = True) -> Iterator[Opened]:
    """``downloaded``: whether every file is on this machine, or is to be brought here whole."""
    sources = Opened(files, downloaded)
    try:
        yield sources
    finally:
        sources.close()


def blocks(files: Files, piece: Piece) -> Iterator[bytes]:
    """The bytes of a piece, some megabytes at a time. Raises Unreadable when the file ends before it does."""
    with files.open(piece.file) as stream:
        stream.seek(piece.start)
        left = piece.stop - piece.start
        while left:
            block = stream.read(min(left, REMOTE_CHUNK))
            if not block:
                raise damaged(piece.file, f"ends inside {piece.tensor}")
            left -= len(block)
            yield block


def _copy_range(source: int, target: int, piece: Piece) -> None:
    """Copied inside the kernel where the file systems allow it."""
    start, end = piece.start, piece.stop
    by_kernel = hasattr(os, "copy_file_range")
    while start < end:
        if by_kernel:
            try:
                count = os.copy_file_range(source, target, end - start, offset_src=start)
            except OSError:  # not between these two file systems; whatever else is wrong, the write below says it
                by_kernel = False
                continue
        else:
            block = os.pread(source, min(end - start, CHUNK), start)
            write_all(target, block)
            count = len(block)
        if count == 0 and by_kernel:  # some file systems copy nothing and call it done
            by_kernel = False
        elif count == 0:
            raise damaged(piece.file, f"ends inside {piece.tensor}")
        start += count


def write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
