"""What was begun for one request is gone on with by the same one only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spec_convert.errors import UsageError


def require_same(
    path: Path, what: str, there: Mapping[str, object], asked: Mapping[str, object], *, last: str | None = None
) -> None:
    """Raises UsageError, which names the first key that differs, when ``path`` holds the ``what`` of another request.

    ``last``: a key that follows from others, and is named when nothing else differs.
    """
    for key in sorted({*there, *asked}, key=lambda key: (key == last, key)):
        if there.get(key) != asked.get(key):
            raise UsageError(
                f"{path} holds the {what} of another request: its {key} is {there.get(key)!r}, not {asked.get(key)!r}",
                hint="ask for the same again to resume it, or give another OUTPUT",
            )
