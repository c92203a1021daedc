"""The sha256 of every source file that is read whole, in a thread of its own while the rest of a conversion goes on.

One stream of sha256 takes twice as long as copying the file does, so it has to start before anything is planned.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from mmap import ACCESS_READ, mmap
from pathlib import Path
from threading import Event

from spec_convert.checkpoint import Checkpoint
from spec_convert.containers.refusal import damaged
from spec_convert.copying import Piece, blocks
from spec_convert.tensor import Files, Tensor

# Every block costs two waits for the interpreter, which is busy importing and planning: so not many of them.
BLOCK = 16 << 20


class SourceHashes:
    """The hashes of one checkpoint's files. As a context manager, so that a refused checkpoint is not hashed on.

    When they are ``wanted``, files on this machine are read from the start; what is on the Hub only for ``result``.
    Without ``weights`` those of a model are left alone of which a conversion reads only a part: see `hashes_of_parts`.
    """

    def __init__(self, checkpoint: Checkpoint, *, wanted: bool, weights: bool = True) -> None:
        self._checkpoint = checkpoint
        self._weight_files = checkpoint.weight_files if weights else ()
        self._at_once = wanted and checkpoint.files.revision is None
        self._abandoned = Event()
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._future: Future[dict[str, str]] | None = None

    def __enter__(self) -> SourceHashes:
        if self._at_once:
            self._start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._abandoned.set()
        self._thread.shutdown()

    def result(self) -> dict[str, str]:
        """File name to sha256, in hexadecimal. Raises Unreadable when a file cannot be read."""
        return self._start().result()

    def _start(self) -> Future[dict[str, str]]:
        if self._future is None:
            self._future = self._thread.submit(self._all)
        return self._future

    def _all(self) -> dict[str, str]:
        files = self._checkpoint.files
        described = [name for name in files.sizes() if name == "config.json" or name.endswith(".index.json")]
        return {name: self._one(files.path(name)) for name in sorted({*self._weight_files, *described})}

    def _one(self, path: Path) -> str:
        digest = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as stream:
                size = os.fstat(stream.fileno()).st_size
                for start in range(0, size, BLOCK):
                    if self._abandoned.is_set():
                        break
                    # Mapped rather than read: saves copying every byte once more.
                    with mmap(stream.fileno(), min(BLOCK, size - start), offset=start, access=ACCESS_READ) as block:
                        digest.update(block)
        except (OSError, ValueError) as reason:  # ValueError: it is shorter than it was
            raise damaged(path.name, f"cannot be read: {reason}") from reason
        return digest.hexdigest()


def hashes_of_parts(files: Files, tensors: Iterable[Tensor]) -> dict[str, str]:
    """The sha256 of the bytes of each tensor, by name. Raises Unreadable when one cannot be read."""
    hashes = {}
    for tensor in tensors:
        digest = hashlib.sha256()
        for block in blocks(files, Piece(tensor.file, tensor.start, tensor.start + tensor.nbytes, tensor.name)):
            digest.update(block)
        hashes[tensor.name] = digest.hexdigest()
    return hashes
