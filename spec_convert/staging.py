"""An output directory that appears whole or not at all, however its writer ends."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from itertools import chain, count
from pathlib import Path

from spec_convert.errors import UsageError
from spec_convert.narration import say
from spec_convert.tensor import Files

OURS = ("config.json", "conversion.json", "*.safetensors", "*.safetensors.index.json")


@contextmanager
def staged(output: Path, *, untouchable: Iterable[Files], force: bool) -> Iterator[Path]:
    """A temporary sibling of ``output`` to write into; it takes the name ``output`` when the block ends well.

    Raises UsageError when ``output`` holds one of the ``untouchable`` checkpoints, exists without ``force``, cannot be
    written, or is being written by another process. What a killed run left behind is removed by the next one.
    """
    output = Path(os.path.abspath(output.expanduser()))
    for files in untouchable:
        _refuse_holding(output, files)
    _refuse_existing(output, force)
    partial, replaced = (output.parent / f".{output.name}.{state}" for state in ("partial", "replaced"))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        lock = _claim(partial)
    except OSError as reason:
        raise _cannot_write(output, reason) from reason
    try:
        yield partial
        _refuse_existing(output, force)
        _exchange(partial, output, replaced)
    except BaseException as failure:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(failure, OSError):
            raise _cannot_write(output, failure) from failure
        raise
    finally:
        os.close(lock)


def _cannot_write(output: Path, reason: OSError) -> UsageError:
    full = reason.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "make room on that disk" if full else "give an OUTPUT in a folder that you may write to"
    return UsageError(f"cannot write {output}: {reason.strerror or reason}", hint=hint)


def _refuse_holding(output: Path, files: Files) -> None:
    """The files of a Hub cache are links: neither they nor what they point to may lie in ``output``."""
    if files.revision is not None:
        return
    for name in files.sizes():
        path = files.path(name)
        for place in (path.resolve(), path.parent.resolve()):
            if place.is_relative_to(output.resolve()):
                raise UsageError(f"OUTPUT {output} holds {files.label}", hint="give a folder of its own")


def _refuse_existing(output: Path, force: bool) -> None:
    if not os.path.lexists(output):
        return
    if not output.is_dir() or output.is_symlink():
        raise UsageError(f"OUTPUT {output} exists and is not a folder", hint="give another OUTPUT folder")
    if os.listdir(output) and not force:
        raise UsageError(f"OUTPUT {output} exists", hint="`--force` replaces it")
    if any(place.is_relative_to(output) for place in (Path.cwd(), Path.home())):
        raise UsageError(f"OUTPUT {output} is where you are or live", hint="give a folder of its own")


def _claim(partial: Path) -> int:
    """Make ``partial`` ours, empty, and locked: the lock ends with this process, however it ends."""
    partial.mkdir(exist_ok=True)
    lock = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(lock), os.stat(partial)):
            raise BlockingIOError  # its owner has just renamed or removed it
        for left in partial.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    except BlockingIOError:
        os.close(lock)
        raise UsageError(f"another process is writing {partial}", hint="wait for it, or give another OUTPUT") from None
    return lock


def _exchange(partial: Path, output: Path, replaced: Path) -> None:
    """Give ``partial`` the name ``output``. What had that name goes, unless it holds anything that is not ours.

    Killed in between, the old folder is in ``replaced``.
    """
    shutil.rmtree(replaced, ignore_errors=True)
    inside = sorted(os.listdir(output)) if output.exists() else []
    foreign = [name for name in inside if not any(fnmatch(name, ours) for ours in OURS)]
    if foreign:
        replaced = _unused(output)
        say(f"{output} held {foreign[0]}, which no conversion writes: the old folder is kept as {replaced}")
    if inside:
        os.rename(output, replaced)
    os.rename(partial, output)
    if not foreign:
        shutil.rmtree(replaced, ignore_errors=True)


def _unused(output: Path) -> Path:
    """``OUTPUT.replaced``, or the first of ``.replaced-2``, ``-3``, … that does not exist."""
    first = output.with_name(f"{output.name}.replaced")
    others = (output.with_name(f"{output.name}.replaced-{number}") for number in count(2))
    return next(place for place in chain([first], others) if not place.exists())
