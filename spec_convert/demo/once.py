"""Results that are made once and kept: a folder appears whole or not at all, whatever interrupts its making."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spec_convert.errors import UsageError
from spec_convert.staging import staged


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target`` to write into; it takes the name ``target`` when the block ends well."""
    try:
        with staged(target, untouchable=(), force=False) as unfinished:
            yield unfinished
    except UsageError as reason:
        hint = "give another folder with `--folder`, or make room"
        raise UsageError(f"cannot write the demo's {target.name}: {reason.message}", hint=hint) from reason
