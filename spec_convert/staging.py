"""An output directory that appears whole or not at all, however its writer ends."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spec_convert.checkpoint import Files
from spec_convert.errors import UsageError


@contextmanager
def staged(output: Path, *, source: Files, force: bool) -> Iterator[Path]:
    """A temporary sibling of ``output`` to write into; it takes the name ``output`` when the block ends well.

    Raises UsageError when ``output`` is or holds the source, exists without ``force``, or is being written by another
    process. What a killed run left behind is removed by the next one.
    """
    output = Path(os.path.abspath(output.expanduser()))
    _refuse_source(output, source)
    _refuse_existing(output, force)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.parent / f".{output.name}.partial"
        lock = _claim(partial)
    except OSError as reason:
        raise UsageError(f"cannot write {output}: {reason.strerror}", hint="give another OUTPUT folder") from reason
    try:
        yield partial
        _refuse_existing(output, force)
        _exchange(partial, output)
    except OSError as reason:
        raise UsageError(f"cannot write {output}: {reason.strerror or reason}", hint="is the disk full?") from reason
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(lock)


def _refuse_source(output: Path, source: Files) -> None:
    for name in source.sizes():
        if source.revision is None and source.path(name).resolve().is_relative_to(output.resolve()):
            raise UsageError(f"OUTPUT {output} holds the source checkpoint", hint="give a folder of its own")


def _refuse_existing(output: Path, force: bool) -> None:
    if not os.path.lexists(output):
        return
    if not output.is_dir() or output.is_symlink():
        raise UsageError(f"OUTPUT {output} exists and is not a folder", hint="give another OUTPUT folder")
    inside = os.listdir(output)
    if inside and not force:
        raise UsageError(f"OUTPUT {output} exists", hint="`--force` replaces it")
    if inside and "config.json" not in inside:
        raise UsageError(
            f"OUTPUT {output} is no model folder (it has no config.json): even `--force` does not replace it",
            hint="give another OUTPUT folder, or remove this one yourself",
        )


def _claim(partial: Path) -> int:
    """Make ``partial`` ours, empty, and locked: the lock ends with this process, however it ends."""
    partial.mkdir(exist_ok=True)
    lock = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise UsageError(f"another process is writing {partial}", hint="wait for it, or give another OUTPUT") from None
    for left in partial.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    return lock


def _exchange(partial: Path, output: Path) -> None:
    """Give ``partial`` the name ``output``. An old output stands until the instant in which the new one replaces it."""
    if not output.exists() or not os.listdir(output):
        os.rename(partial, output)
        return
    old = output.parent / f".{output.name}.replaced"
    shutil.rmtree(old, ignore_errors=True)
    os.rename(output, old)
    os.rename(partial, output)
    shutil.rmtree(old)
