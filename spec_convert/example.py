"""What the author of a format gives so that a tiny checkpoint of it can be made: a config, shapes, a few values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from typing import Any

from spec_convert.shapes import Known, size_of
from spec_convert.templates import MapError, Segment, Template
from spec_convert.tensor_map import Row, TensorMap


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a tiny checkpoint. All different, and heads * head_dim is not hidden: a transposed matrix shows."""

    hidden: int = 16
    inner: int = 40
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 6
    vocabulary: int = 32
    draft_vocabulary: int = 20
    layers: int = 1
    verifier_layers: int = 8


@dataclass(frozen=True, kw_only=True)
class Example:
    """One checkpoint of a format: config.json, the shapes of its weights, and the values of its vocabulary maps.

    Weights are filled with random numbers; ``values`` are stored as they are (whole numbers as int64, truth values as
    bool), also where ``shapes`` has the name. ``file`` is how such checkpoints call their weight file.

    ``flags`` are what `convert` must be told of such checkpoints, as its keywords, and ``warned`` the rules of the
    warnings that none of them is spared: both only where the layout itself leaves out a fact or loses something.
    """

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    values: Mapping[str, Sequence[int] | Sequence[bool]] = field(default_factory=dict)
    file: str = "model.safetensors"
    flags: Mapping[str, Any] = field(default_factory=dict)
    warned: frozenset[str] = frozenset()


def shapes_of(
    table: TensorMap,
    sizes: Sizes,
    *,
    layers: int | None = None,
    also: Collection[str] = (),
    leave_out: Collection[str] = (),
    **terms: int,
) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a checkpoint that follows ``table``: what `Example.shapes` is made of.

    Shape laws are computed with ``sizes``; ``terms`` are the names in them that are no field of `Sizes` (`aux=3`).
    Holes: `{p:a|b}` becomes each word; `{i:int}` the numbers below ``layers`` (those of ``sizes`` unless given) and
    `{i:1+}` the same from 1 on; `{i:3n+2}` the first ``layers`` numbers of its kind. Of the spellings of an `either`
    the first is taken: for another one give its own table. Optional rows are skipped unless ``also`` names them; rows
    that drop, refuse or derive always are. ``leave_out`` are names that this example has not, or gives otherwise.
    Raises MapError for a row that does not tell: give it a shape, or leave it out and write its tensors by hand.
    """
    known = {name: Known(size, "sizes") for name, size in (_named(sizes) | terms).items()}
    made: dict[str, tuple[int, ...]] = {}
    for row in _written(table, also):
        for position, template in enumerate(row.sources):
            if template.text not in leave_out:
                names = set(_names(template, sizes.layers if layers is None else layers)) - set(leave_out)
                made |= dict.fromkeys(sorted(names), _shape(row, position, known) if names else ())
    return made


def _named(sizes: Sizes) -> dict[str, int]:
    return {each.name: getattr(sizes, each.name) for each in fields(sizes)}


def _written(table: TensorMap, also: Collection[str]) -> Iterator[Row]:
    """The rows whose tensors are in the example, each tensor in one spelling."""
    spelt: set[str] = set()
    for row in table:
        wanted = not row.optional or not set(also).isdisjoint({row.text, *(t.text for t in row.sources)})
        if row.targets and not row.derived and wanted and row.spelling not in spelt:
            if row.spelling:
                spelt.add(row.spelling)
            yield row


def _names(template: Template, layers: int) -> Iterator[str]:
    options = [_options(template, segment, layers) for segment in template.holes.values()]
    for words in product(*options):
        yield template.fill(dict(zip(template.holes, words, strict=True)))


def _options(template: Template, segment: Segment, layers: int) -> Sequence[str]:
    if segment.choices:
        return segment.choices
    if segment.numbers is None:
        raise MapError(
            f"{template.text!r}: `{{{segment.hole}}}` may be anything: leave the row out, write its tensors by hand"
        )
    start, step = segment.numbers.start, segment.numbers.step
    return [str(n) for n in (range(start, layers) if step == 1 else range(start, start + layers * step, step))]


def _shape(row: Row, position: int, known: Mapping[str, Known]) -> tuple[int, ...]:
    if position >= len(row.laws):
        raise MapError(f"{row.text!r} has no shape: give it one, or leave the row out, and write its tensors by hand")
    try:
        return tuple(size_of(term, known) for term in row.laws[position])
    except KeyError as unknown:
        raise MapError(f"{row.text!r}: its shape has {unknown}, which is no size: give it by keyword") from None
