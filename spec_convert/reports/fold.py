"""Folds names that differ only in their numbers: the 32 layers of a tensor become one line, `layers.{0...31}.x`."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TypeVar

from spec_convert.findings import Finding, Level

Key = TypeVar("Key", bound=Hashable)
Prose = tuple[str | int, ...]  # an int is the place of a number that also stands in the name

# Nine digits: no model has more layers, and int() refuses the absurdly long numbers that a hostile file can hold.
_NUMBER = r"(0|[1-9]\d{0,8})"
_IN_A_NAME = re.compile(rf"(?:^|(?<=\.)){_NUMBER}(?=\.|\Z)", re.ASCII)
_IN_PROSE = re.compile(rf"(?<=\.){_NUMBER}(?=\.)", re.ASCII)


def fold(names: Iterable[str]) -> list[str]:
    """The same names, in order of first appearance, with ranges for the numbers: exactly these names, never more."""
    split = (_IN_A_NAME.split(name) for name in names)
    return [_join(texts, numbers) for texts, numbers in _folded((tuple(s[::2]), tuple(s[1::2])) for s in split)]


def fold_findings(findings: Iterable[Finding]) -> list[Finding]:
    """One finding for all that say the same of several layers."""
    return [
        Finding(
            rule=rule, level=level, where=_join(where, numbers),
            message=_fill(message, numbers), hint=_fill(hint, numbers),
        )
        for (rule, level, where, message, hint), numbers in _folded(map(_split, findings))
    ]  # fmt: skip


def _split(finding: Finding) -> tuple[tuple[str, Level, tuple[str, ...], Prose, Prose], tuple[str, ...]]:
    """What a finding says without the numbers of its name, and those numbers."""
    pieces = _IN_A_NAME.split(finding.where)
    numbers = pieces[1::2]

    def prose(text: str) -> Prose:
        parts = _IN_PROSE.split(text)
        return tuple(numbers.index(p) if i % 2 and p in numbers else p for i, p in enumerate(parts))

    key = (finding.rule, finding.level, tuple(pieces[::2]), prose(finding.message), prose(finding.hint))
    return key, tuple(numbers)


def _fill(prose: Prose, numbers: Sequence[str]) -> str:
    return "".join(numbers[part] if isinstance(part, int) else part for part in prose)


def _join(texts: Sequence[str], numbers: Sequence[str]) -> str:
    return "".join(text + number for text, number in zip_longest(texts, numbers, fillvalue=""))


def _folded(rows: Iterable[tuple[Key, tuple[str, ...]]]) -> Iterator[tuple[Key, tuple[str, ...]]]:
    groups: dict[Key, dict[tuple[str, ...], None]] = {}
    for key, numbers in rows:
        groups.setdefault(key, {})[numbers] = None
    for key, group in groups.items():
        for numbers in _ranges(list(group)):
            yield key, numbers


def _ranges(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Folds one column at a time, and only rows that agree in all others, so that no combination is invented."""
    for column in reversed(range(len(rows[0]))):
        groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
        for row in rows:
            groups.setdefault((row[:column], row[column + 1 :]), []).append(int(row[column]))
        rows = [(*before, _range(numbers), *after) for (before, after), numbers in groups.items()]
    return rows


def _range(numbers: list[int]) -> str:
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    text = ",".join(str(first) if first == last else f"{first}...{last}" for first, last in runs)
    return text if len(numbers) == 1 else f"{{{text}}}"
