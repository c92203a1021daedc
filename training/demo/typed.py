"""A command as one types it: quoted for a shell, and broken between its options where it is long."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

WIDTH = 88
INDENT = "    "


def as_typed(command: Sequence[str]) -> str:
    """One line, or several with a backslash at the end of each but the last."""
    first, *others = _parts(command)
    lines = [first]
    for part in others:
        if len(lines[-1]) + 1 + len(part) > WIDTH:
            lines.append(INDENT + part)
        else:
            lines[-1] += f" {part}"
    return " \\\n".join(lines)


def _parts(command: Sequence[str]) -> Iterator[str]:
    """Words, each option together with its value."""
    together: list[str] = []
    for word in command:
        if together and not (together[-1].startswith("-") and len(together) == 1 and not word.startswith("-")):
            yield shlex.join(together)
            together = []
        together.append(word)
    if together:
        yield shlex.join(together)
