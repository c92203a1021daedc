"""Makes text out of strangers' files safe to print: tensor names and messages may hold any character at all."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Line ends, terminal escapes, text-direction marks and lone surrogates, spelled out as in a Python string."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def encodable(text: str) -> str:
    """Only lone surrogates spelled out: a JSON header can name a tensor with one, and UTF-8 cannot hold it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
