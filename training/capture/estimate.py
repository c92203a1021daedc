"""What a capture will take on the disk, and whether the disk has it."""

from __future__ import annotations

import shutil
from pathlib import Path

from spec_convert.errors import UsageError

ITEM_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def require_space(output: Path, states: int, *, layers: int, scratch: int = 0) -> None:
    """Raises UsageError when the disk of ``output`` has no room for ``states`` bytes, less what is there already.

    ``scratch``: bytes of states at most that lie in ``output`` a second time while they are captured.
    """
    left = max(0, states - size_of(output))
    needed = left + min(left, scratch)
    there = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        fewer = f", fewer of the {layers} layers (--layers)" if layers > 1 else ""
        raise UsageError(
            f"{output} has room for {readable(free)}, and {readable(needed)} are to be written: "
            f"{readable(needed - free)} are missing",
            hint=f"take fewer samples (--max-samples){fewer}, or give an OUTPUT on another disk",
        )


def size_of(folder: Path) -> int:
    """Bytes of the files in ``folder``; none when it does not exist."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) if folder.is_dir() else 0


def readable(size: float) -> str:
    """In powers of ten, as disks are sold: `readable(256_000_000)` is `256.0 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
