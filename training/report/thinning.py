"""Thousands of numbers as few as a chart can show: means of as many as it takes, with their lowest and highest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import TypeVar

Item = TypeVar("Item")
AT_MOST = 120

Number = float | None


@dataclass(frozen=True, slots=True)
class Bucket:
    """Mean, lowest and highest of the numbers that there are, or None three times."""

    mean: Number
    low: Number
    high: Number


def groups(items: Sequence[Item], at_most: int = AT_MOST) -> list[Sequence[Item]]:
    """Neighbours together, the same number everywhere but in the last group."""
    size = ceil(len(items) / at_most) or 1
    return [items[start : start + size] for start in range(0, len(items), size)]


def bucket(items: Sequence[Item], number: Callable[[Item], Number]) -> Bucket:
    known = [value for item in items if (value := number(item)) is not None and isfinite(value)]
    if not known:
        return Bucket(None, None, None)
    return Bucket(sum(known) / len(known), min(known), max(known))
