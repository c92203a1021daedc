"""JSON as a checkpoint may hold it: UTF-8, no key twice, no absurd depth or number of values, an object at the top."""

from __future__ import annotations

import json
import re
from typing import Any

from spec_convert.containers.refusal import unreadable

# The index of a model with a hundred thousand tensors has 10 MB and as many values. What is much larger is meant to
# exhaust a machine: values take up to a hundred times the memory of their text, so both are bounded.
MAX_LENGTH = 32_000_000
MAX_VALUES = 500_000
MAX_DEPTH = 64
MAX_DIGITS = 100
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")
_ESCAPED_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # UTF-8 itself cannot hold one


def parse_object(raw: bytes, *, where: str, rule: str, hint: str = "") -> dict[str, Any]:
    """The object, or Unreadable under the given rule."""
    if not raw.strip():
        raise unreadable(rule, where, "is empty", hint)
    if len(raw) > MAX_LENGTH:
        raise unreadable(rule, where, f"has {len(raw)} bytes; nothing here needs more than {MAX_LENGTH}", hint)
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_VALUES:  # each value comes after one of these
        raise unreadable(rule, where, f"has more than {MAX_VALUES} values", hint)
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_int=_whole)
        _check_depth(value)
        if _ESCAPED_HALF.search(raw):
            _check_text(value)
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


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"has a number of {len(digits)} digits")
    return int(digits)


def _check_depth(top: Any) -> None:
    left = [(top, 1)]
    while left:
        value, depth = left.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"is nested more than {MAX_DEPTH} deep")
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        left += [(item, depth + 1) for item in items if isinstance(item, dict | list)]


def _check_text(top: Any) -> None:
    left = [top]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str) and _HALF_A_PAIR.search(value):
            raise ValueError("holds half of a UTF-16 pair, which is not text")


def _kind(value: Any) -> str:
    kinds = {list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")
