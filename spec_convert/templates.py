"""Tensor names with holes: `layers.{i:int}.mlp.{p:gate_proj|up_proj}.weight`, matched whole, never by substring.

A template is dotted text. A segment is plain text or one hole; a hole stands for exactly one segment, or, written
`{rest...}`, for one or more. Kinds of holes: `{x}` anything, `{x:a|b}` one of these words, `{i:int}` a number,
`{i:1+}` a number from 1 on, `{i:3n+2}` the numbers 2, 5, 8, …  Whether two templates can ever match the same name is
decided exactly, when a table is built, so that the order of rows in a table never matters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import lcm

_HOLE = re.compile(r"\{(?P<name>[a-z_]+)(?P<rest>\.\.\.)?(?::(?P<kind>[^{}]+))?\}")
_DOT_OUTSIDE = re.compile(r"\.(?![^{]*\})")  # not one of the dots of `{rest...}`
_NUMBERS = re.compile(r"int|(?P<start>\d+)\+|(?P<step>[1-9]\d*)n(?:\+(?P<offset>\d+))?")
DIGITS = 18  # Python refuses to read numbers of thousands of digits; nothing that is counted needs more than these


class MapError(ValueError):
    """A table is wrong. Raised where the table is written, never while converting."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers ``start, start + step, start + 2·step, …``"""

    start: int = 0
    step: int = 1

    def __contains__(self, number: int) -> bool:
        return number >= self.start and (number - self.start) % self.step == 0


@dataclass(frozen=True, slots=True)
class Segment:
    """One dotted part of a template: plain text, or a hole."""

    literal: str | None = None
    hole: str = ""
    rest: bool = False
    choices: tuple[str, ...] = ()
    numbers: Numbers | None = None

    def accepts(self, text: str) -> bool:
        if self.literal is not None:
            return text == self.literal
        if self.numbers is not None:
            plain = text.isascii() and text.isdigit() and len(text) <= DIGITS and str(int(text)) == text
            return plain and int(text) in self.numbers
        return not self.choices or text in self.choices

    def common(self, other: Segment) -> str | None:
        """Some text that both accept, or None when there is none."""
        if self.literal is not None and other.literal is not None:
            return self.literal if self.literal == other.literal else None
        candidates = [*self._samples(other), *other._samples(self)]
        return next((text for text in candidates if self.accepts(text) and other.accepts(text)), None)

    def _samples(self, other: Segment) -> Sequence[str]:
        if self.literal is not None:
            return (self.literal,)
        if self.choices:
            return self.choices
        if self.numbers is None:
            return ("x",)
        if other.numbers is None:
            return (str(self.numbers.start),)
        # Two arithmetic sequences that meet at all meet within one common period after the later start.
        first = max(self.numbers.start, other.numbers.start)
        return [str(n) for n in range(first, first + lcm(self.numbers.step, other.numbers.step)) if n in self.numbers]


@dataclass(frozen=True)
class Template:
    """A tensor name with holes."""

    text: str

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        return tuple(self._segment(part) for part in _DOT_OUTSIDE.split(self.text))

    def _segment(self, part: str) -> Segment:
        hole = _HOLE.fullmatch(part)
        if hole is None:
            if "{" in part or "}" in part or not part:
                raise MapError(f"{self.text!r}: {part!r} is neither plain text nor one whole hole")
            return Segment(literal=part)
        name, rest, kind = hole["name"], bool(hole["rest"]), hole["kind"]
        if kind is None:
            return Segment(hole=name, rest=rest)
        if rest:
            raise MapError(f"{self.text!r}: {part!r} stands for several segments and cannot have a kind")
        if numbers := _NUMBERS.fullmatch(kind):
            start = numbers["start"] or numbers["offset"] or 0
            return Segment(hole=name, numbers=Numbers(int(start), int(numbers["step"] or 1)))
        choices = tuple(kind.split("|"))
        if any(not choice or "." in choice for choice in choices):
            raise MapError(f"{self.text!r}: a choice of {part!r} is empty or more than one segment")
        return Segment(hole=name, choices=choices)

    @cached_property
    def holes(self) -> dict[str, Segment]:
        found: dict[str, Segment] = {}
        for segment in self.segments:
            if segment.literal is None:
                if segment.hole in found:
                    raise MapError(f"{self.text!r}: the hole {segment.hole!r} appears twice")
                found[segment.hole] = segment
        return found

    @cached_property
    def length(self) -> int:
        """Of how many segments each name is that it matches; 0: that depends."""
        return 0 if any(segment.rest for segment in self.segments) else len(self.segments)

    def match(self, name: str) -> dict[str, str] | None:
        """What the holes stand for in ``name``, or None when the template does not match the whole of it."""
        if not self.holes:
            return {} if name == self.text else None
        return _match(self.segments, tuple(name.split(".")))

    def fill(self, values: Mapping[str, str]) -> str:
        return ".".join(values[s.hole] if s.literal is None else s.literal for s in self.segments)

    def witness(self, other: Template) -> str | None:
        """A name that both templates match, or None when they can never collide."""
        if not self.holes and not other.holes:
            return self.text if self.text == other.text else None
        if self.length and other.length and self.length != other.length:
            return None
        parts = _overlap(self.segments, other.segments)
        return None if parts is None else ".".join(parts)


def _match(segments: tuple[Segment, ...], parts: tuple[str, ...]) -> dict[str, str] | None:
    if not segments or not parts:
        return {} if not segments and not parts else None
    head, tail = segments[0], segments[1:]
    longest = len(parts) - len(tail) if head.rest else 1
    for taken in range(1, longest + 1):
        if not head.rest and not head.accepts(parts[0]):
            break
        found = _match(tail, parts[taken:])
        if found is not None:
            return found if head.literal is not None else {head.hole: ".".join(parts[:taken])} | found
    return None


def _overlap(a: tuple[Segment, ...], b: tuple[Segment, ...]) -> tuple[str, ...] | None:
    if not a or not b:
        return () if not a and not b else None
    shared = a[0].common(b[0])
    if shared is None:
        return None
    steps = [(a[1:], b[1:])]
    if a[0].rest:
        steps.append((a, b[1:]))
    if b[0].rest:
        steps.append((a[1:], b))
    for left, right in steps:
        tail = _overlap(left, right)
        if tail is not None:
            return (shared, *tail)
    return None
