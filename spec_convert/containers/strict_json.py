"""JSON as a checkpoint may hold it: UTF-8, no key twice, no absurd depth, one object at the top."""

from __future__ import annotations

import json
from typing import Any

from spec_convert.containers.refusal import unreadable

MAX_BYTES = 100_000_000
MAX_DEPTH = 64


def parse_object(raw: bytes, *, where: str, rule: str, hint: str = "") -> dict[str, Any]:
    """The object, or Unreadable under the given rule."""
    if not raw.strip():
        raise unreadable(rule, where, "is empty", hint)
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
        _check(value)
    except UnicodeDecodeError as error:
        raise unreadable(rule, where, f"is not UTF-8 text (byte {error.start})", hint) from error
    except json.JSONDecodeError as error:
        raise unreadable(rule, where, f"is not JSON: {error}", hint) from error
    except RecursionError as error:
        raise unreadable(rule, where, f"is nested more than {MAX_DEPTH} deep", hint) from error
    except ValueError as error:
        raise unreadable(rule, where, str(error), hint) from error
    if not isinstance(value, dict):
        raise unreadable(rule, where, f"holds a JSON {_kind(value)} where an object belongs", hint)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Parsers disagree on which of two equal keys wins, so two readers would see two checkpoints."""
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"has the key {twice!r} twice")
    return made


def _check(top: Any) -> None:
    left = [(top, 1)]
    while left:
        value, depth = left.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested more than {MAX_DEPTH} deep")
        if isinstance(value, dict):
            left += [(item, depth + 1) for pair in value.items() for item in pair]
        elif isinstance(value, list):
            left += [(item, depth + 1) for item in value]
        elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("holds half of a UTF-16 pair, which is not text")


def _kind(value: Any) -> str:
    kinds = {list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")
