"""A checkpoint layout as a table: which tensor becomes which, what shape it must have, what is left out and why.

No regular expressions and no row order. A row always matches the whole name; a table refuses to be built when two of
its rows could claim one name, or could write one name, so every tensor of a checkpoint is claimed by exactly one row or
reported. Conditions belong to formats, not to rows: where values decide, a format has several tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from spec_convert.operations import COPY, Fuse, Operation, Split, Stack, Then
from spec_convert.templates import MapError, Template

Shape = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table. ``because`` is given for what is dropped or refused; ``laws`` has one shape per source."""

    sources: tuple[Template, ...]
    targets: tuple[Template, ...] = ()
    via: Operation = COPY
    laws: tuple[Shape, ...] = ()
    optional: bool = False
    because: str = ""
    refused: bool = False
    derived: bool = False
    spelling: str = ""

    def __post_init__(self) -> None:
        holes = [t.holes for t in (*self.sources, *self.targets)]
        if self.targets and any(h != holes[0] for h in holes):
            sides = " -> ".join(", ".join(repr(t.text) for t in side) for side in (self.sources, self.targets))
            raise MapError(f"{sides}: all names of a row must have the same holes")
        if self.laws and len(self.laws) != len(self.sources):
            raise MapError(f"{self.text!r}: {len(self.sources)} sources, {len(self.laws)} shapes")
        if self.derived and any(holes):
            raise MapError(f"{self.text!r}: a tensor can only be derived of whole names, without holes")

    @property
    def text(self) -> str:
        return ", ".join(source.text for source in self.sources)


def move(source: str, target: str, *, shape: str = "", optional: bool = False, via: Operation = COPY) -> Row:
    """``source`` is stored as ``target``, unchanged or through an operation."""
    return Row(
        sources=(Template(source),), targets=(Template(target),), via=via, optional=optional,
        laws=(tuple(shape.split()),) if shape else (),
    )  # fmt: skip


def keep(name: str, *, shape: str = "", optional: bool = False, via: Operation = COPY) -> Row:
    """``name`` is stored under the same name."""
    return move(name, name, shape=shape, optional=optional, via=via)


def drop(source: str, *, because: str) -> Row:
    """``source`` is left out, for a reason that goes into the plan. Its absence is fine."""
    return Row(sources=(Template(source),), optional=True, because=because)


def refuse(source: str, *, because: str) -> Row:
    """``source`` makes the checkpoint another function than the unified one: it is refused with this reason."""
    return Row(sources=(Template(source),), optional=True, because=because, refused=True)


def derive(target: str, *, of: str | tuple[str, ...], via: Operation) -> Row:
    """``target`` is computed from ``of``, one name or several, which other rows move or drop as well."""
    names = (of,) if isinstance(of, str) else of
    return Row(sources=tuple(map(Template, names)), targets=(Template(target),), via=via, derived=True)


def fuse(*sources: str, into: str, shapes: str) -> Row:
    """Matrices stacked by rows into one. ``shapes``: one shape per source, separated by commas."""
    laws = tuple(tuple(shape.split()) for shape in shapes.split(","))
    if len(laws) != len(sources):
        raise MapError(f"{into!r}: {len(sources)} sources, {len(laws)} shapes")
    parts = tuple(law[0] for law in laws)
    return Row(sources=tuple(map(Template, sources)), targets=(Template(into),), via=Fuse(parts), laws=laws)


def stack(slabs: Sequence[Sequence[str]], *, into: str, shape: str) -> Row:
    """Matrices of one ``shape`` as the slabs of one tensor, each slab made of some by rows (the experts of a layer)."""
    names = [name for slab in slabs for name in slab]
    if len({len(slab) for slab in slabs}) != 1:
        raise MapError(f"{into!r}: the slabs are made of different numbers of tensors")
    return Row(
        sources=tuple(map(Template, names)), targets=(Template(into),), via=Stack(len(slabs), len(slabs[0])),
        laws=(tuple(shape.split()),) * len(names),
    )  # fmt: skip


def split(source: str, *, into: Mapping[str, str], shape: str = "", first: Operation = COPY) -> Row:
    """One stacked matrix cut by rows; ``into`` gives each target its rows, e.g. ``{"q": "heads*head_dim", …}``.

    ``first`` is done to the whole of it. In ``shape`` the rows may have a name of their own.
    """
    cut = Split(tuple(into.values()))
    return Row(
        sources=(Template(source),), targets=tuple(map(Template, into)), via=cut if first is COPY else Then(first, cut),
        laws=(tuple(shape.split()),) if shape else (),
    )  # fmt: skip


def either(*spellings: TensorMap) -> TensorMap:
    """The same tensors under several spellings (``midlayer.`` or ``layers.0.``): any one of them, never two at once."""
    rows = [replace(row, spelling=", ".join(t.text for t in row.targets)) for table in spellings for row in table.rows]
    return TensorMap(*rows)


class TensorMap:
    """A table of rows. ``a + b`` and ``TensorMap(a, row, b)`` compose; every composition is checked again."""

    def __init__(self, *parts: Row | TensorMap) -> None:
        self.rows: tuple[Row, ...] = tuple(
            row for part in parts for row in ((part,) if isinstance(part, Row) else part.rows)
        )
        _refuse_overlaps(self.rows, "source")
        _refuse_overlaps(self.rows, "target")

    def __add__(self, other: TensorMap) -> TensorMap:
        return TensorMap(self, other)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def under(self, source: str, target: str | None = None) -> TensorMap:
        """The same table with a prefix on every source name, and on every target name (the same one by default)."""
        prefix = source if target is None else target
        return TensorMap(
            *(
                replace(
                    row,
                    sources=tuple(Template(source + t.text) for t in row.sources),
                    targets=tuple(Template(prefix + t.text) for t in row.targets),
                    spelling=row.spelling and prefix + row.spelling,
                )
                for row in self.rows
            )
        )

    @property
    def inverse(self) -> TensorMap:
        """The way back. Of several spellings the first is written; what was dropped or derived stays out."""
        rows: list[Row] = []
        written: set[str] = set()
        for row in self.rows:
            if row.derived:
                rows += [drop(t.text, because=f"derived from {row.text}") for t in row.targets]
            elif row.targets and not (row.spelling and row.spelling in written):
                written.add(row.spelling)
                back = row.via.inverse
                assert back is not None, f"{row.via.name} has no inverse"
                laws = row.laws if row.via is COPY else ()
                rows.append(replace(row, sources=row.targets, targets=row.sources, via=back, laws=laws, spelling=""))
        return TensorMap(*rows)


def _refuse_overlaps(rows: Iterable[Row], side: str) -> None:
    names = [
        (row, template)
        for row in rows
        if not (side == "source" and row.derived)
        for template in (row.sources if side == "source" else row.targets)
    ]
    plain: dict[str, tuple[Row, Template]] = {}
    holed = [(row, template) for row, template in names if template.holes]
    pairs = list(combinations(holed, 2))
    for row, template in names:
        if not template.holes:
            if template.text in plain:
                pairs.append((plain[template.text], (row, template)))
            plain[template.text] = row, template
            pairs += [(other, (row, template)) for other in holed]
    for (one, left), (other, right) in pairs:
        if side == "target" and one.spelling and one.spelling == other.spelling:
            continue  # two spellings of one tensor: that only one occurs is checked against the checkpoint
        if (name := left.witness(right)) is not None:
            raise MapError(f"two rows share the {side} {name!r}: {left.text!r} and {right.text!r}")
