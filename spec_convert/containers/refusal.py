"""How every reader says that a file cannot be read."""

from __future__ import annotations

from collections.abc import Iterable

from spec_convert.errors import Unreadable
from spec_convert.rules import found

AGAIN = "Download the file again and compare its sha256."
MOST_LETTERS = 500


def unreadable(rule: str, where: str, message: str, hint: str = "") -> Unreadable:
    return Unreadable(found(rule, where=_shown(where), message=_shown(message), hint=hint))


def _shown(text: str) -> str:
    """Short, and without the control characters by which a hostile name could rewrite a terminal or a CI log."""
    text = text if len(text) <= MOST_LETTERS else text[:MOST_LETTERS] + "..."
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def damaged(file: str, message: str, hint: str = AGAIN) -> Unreadable:
    return unreadable("unreadable-container", file, message, hint)


def few(names: Iterable[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    ordered = sorted(names)
    listed = ", ".join(ordered[:most])
    return f"{listed} and {len(ordered) - most} more" if len(ordered) > most else listed
