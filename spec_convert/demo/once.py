"""Results that are made once and kept: a folder appears whole or not at all, whatever interrupts its making."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import getpid
from pathlib import Path
from shutil import rmtree

from spec_convert.errors import UsageError


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target`` to write into; it takes the name ``target`` when the block ends well."""
    unfinished = target.with_name(f".{target.name}-{getpid()}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.rename(target)
    except OSError as reason:
        hint = "give another folder with `--folder`, or make room"
        raise UsageError(f"cannot write {target}: {reason.strerror or reason}", hint=hint) from reason
    finally:
        rmtree(unfinished, ignore_errors=True)
