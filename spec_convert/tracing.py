"""What SPEC_CONVERT_TRACE=1 tells a plugin's author on stderr: who was loaded, what was asked and answered."""

from __future__ import annotations

import os
import sys

TRACE = "SPEC_CONVERT_TRACE"


def tracing() -> bool:
    """Whether anybody wants to know: ask before composing a long line."""
    return bool(os.environ.get(TRACE))


def trace(line: str) -> None:
    """One event. Reasons come from strangers and may have many lines: an event has one, without terminal escapes."""
    if tracing():
        words = " ".join(line.split())
        sys.stderr.write("trace: " + "".join(char if char.isprintable() else "?" for char in words) + "\n")
