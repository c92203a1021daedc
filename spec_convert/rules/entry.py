"""How an entry of the catalogue is written: its code, what was seen, why it matters, what to do about it."""

from __future__ import annotations

from spec_convert.findings import Level, Rule


def error(code: str, says: str, why: str, do: str) -> Rule:
    return Rule(code=code, level=Level.ERROR, says=says, why=why, do=do)


def warning(code: str, says: str, why: str, do: str) -> Rule:
    return Rule(code=code, level=Level.WARNING, says=says, why=why, do=do)


def note(code: str, says: str, why: str, do: str) -> Rule:
    return Rule(code=code, level=Level.NOTE, says=says, why=why, do=do)
