"""What is answered so far: a file that grows by a line a conversation, so that a kill loses only what is under way.

Its first line says what was asked for. Conversations end in any order; each line names the place of its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from spec_convert.errors import UsageError
from spec_convert.training.same_request import require_same

Entry = dict[str, Any]  # ``place``, and whatever is known of the conversation there
SYNC_SECONDS = 10.0  # from one flush to the disk itself to the next: what is lost when the power fails


class Journal:
    def __init__(self, file: BinaryIO, starts: dict[int, int]) -> None:
        """``starts``: at which byte the line of each place begins."""
        self._file, self._starts = file, starts
        self._synced = time.monotonic()

    @property
    def done(self) -> frozenset[int]:
        return frozenset(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, entry: Entry) -> None:
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(_line(entry))
        self._file.flush()
        self._starts[entry["place"]] = start
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def __iter__(self) -> Iterator[Entry]:
        """In the order of the places."""
        for _, start in sorted(self._starts.items()):
            self._file.seek(start)
            entry: Entry = json.loads(self._file.readline())
            yield entry


@contextmanager
def open_journal(path: Path, request: dict[str, Any]) -> Iterator[Journal]:
    """The journal at ``path``, begun, or gone on with where an earlier run of the same request ended.

    Raises UsageError when it is one of another request, when another process writes it, or when it is damaged.
    """
    try:
        file = path.open("a+b")
    except OSError as reason:
        raise UsageError(f"cannot write {path}: {reason.strerror}", hint="give another OUTPUT") from reason
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process is writing {path}", hint="wait, or give another OUTPUT") from None
        yield Journal(file, _resumed(path, file, request))


def _resumed(path: Path, file: BinaryIO, request: dict[str, Any]) -> dict[int, int]:
    """Where the lines begin; half a line, which a kill has left at the end, is cut off."""
    file.seek(0)
    starts: dict[int, int] = {}
    start, at = 0, 1
    for at, line in enumerate(file, 1):
        if not line.endswith(b"\n"):
            break
        try:
            entry = json.loads(line)
            if start == 0:
                require_same(path, "answers", entry["request"], request)
            else:
                starts[entry["place"]] = start
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}:{at} is damaged, or no such file", hint="remove it and begin anew") from error
        start += len(line)
    file.truncate(start)
    if start == 0:
        file.write(_line({"request": request}))
        file.flush()
    return starts


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
