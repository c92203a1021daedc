"""Makes what comes out of strangers' files safe to print: any character in a name, any number in a config."""

from __future__ import annotations

from math import isfinite
from typing import Any


def one_line(text: str) -> str:
    """Line ends, terminal escapes, text-direction marks and lone surrogates, spelled out as in a Python string."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def encodable(text: str) -> str:
    """Only lone surrogates spelled out: a JSON header can name a tensor with one, and UTF-8 cannot hold it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinities, but published configs hold some: they are shown as text."""
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
