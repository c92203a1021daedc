"""`metrics.jsonl`: a line for everything that is logged, on disk at once, and no step in it twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from spec_convert.training.store.manifest import replace_text


class Journal:
    """Open to append. ``lines``: how many to keep of what is there; those after them belong to steps done again."""

    def __init__(self, path: Path, *, lines: int) -> None:
        kept: list[str] = []
        if path.exists():
            with path.open() as file:
                kept = list(islice(file, lines))
        replace_text(path, "".join(kept))
        self._file = path.open("a")

    def write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
