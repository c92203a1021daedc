"""What can be done to tensors on the way: each operation with its shape law and its inverse.

Everything works on raw little-endian arrays: bfloat16 travels as its 16 bits (see `bytes.py`), so that no operation
needs torch and none rounds by accident.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Protocol

from spec_convert.tensor import BITS

if TYPE_CHECKING:
    import numpy as np

Size = Callable[[str], int]  # a shape term such as "heads*head_dim" -> its value


@dataclass(frozen=True, slots=True)
class Header:
    """Dtype (safetensors code) and shape of a tensor that exists or will."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return (prod(self.shape) * BITS[self.dtype] + 7) // 8


class Operation(Protocol):
    """What a table row does to its source tensors."""

    @property
    def name(self) -> str:
        """How plans and conversion.json call it."""

    @property
    def inverse(self) -> Operation | None:
        """The operation that undoes it; None when its result can simply be left out (it was derived)."""

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        """The headers of the results. Raises ValueError when the sources do not fit the operation."""

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        """The results, with the headers that ``outputs`` gave. Raises ValueError when a value would be lost."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The bytes as they are: the writer copies them without reading them."""

    name: str = "copy"

    @property
    def inverse(self) -> Identity:
        return self

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        return list(sources)

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        return list(sources)


COPY = Identity()


@dataclass(frozen=True, slots=True)
class Cast:
    """Another dtype: between floats (round to nearest even), or 0/1 integers to bool and back."""

    to: str
    back: str

    @property
    def name(self) -> str:
        return f"cast {self.back} to {self.to}"

    @property
    def inverse(self) -> Cast:
        return Cast(self.back, self.to)

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        if other := next((source.dtype for source in sources if source.dtype != self.back), None):
            raise ValueError(f"is {other}, expected {self.back}")
        return [Header(self.to, source.shape) for source in sources]

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        return [self._cast(values) for values in sources]

    def _cast(self, values: np.ndarray) -> np.ndarray:
        import numpy as np

        from spec_convert.bytes import NUMPY

        if self.to == "BOOL" and ((values != 0) & (values != 1)).any():
            raise ValueError("holds values other than 0 and 1")
        if self.back == "BF16":
            values = _from_bfloat16(values)
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is looked for below
            cast = values.astype(NUMPY["F32" if self.to == "BF16" else self.to])
            bits = _to_bfloat16(cast) if self.to == "BF16" else cast
        infinite = (bits & 0x7FFF) == 0x7F80 if self.to == "BF16" else np.isinf(bits)
        if (infinite & np.isfinite(values)).any():
            raise ValueError(f"holds a number too large for {self.to}: it would become infinite")
        return bits


def _from_bfloat16(bits: np.ndarray) -> np.ndarray:
    import numpy as np

    widened: np.ndarray = np.left_shift(bits, 16, dtype=np.uint32)
    return widened.view(np.float32)


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    import numpy as np

    bits = np.atleast_1d(values).view(np.uint32)  # numpy warns of a carry in single numbers only
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).reshape(values.shape)
    # Rounding may carry a NaN's mantissa into the exponent: keep NaN a NaN.
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


@dataclass(frozen=True, slots=True)
class OffsetsFromAbsolute:
    """A draft-to-target table of absolute ids (shared head, FR-Spec) as the field's offsets: target = i + d2t[i]."""

    name: str = "offsets from absolute ids"

    @property
    def inverse(self) -> AbsoluteFromOffsets:
        return AbsoluteFromOffsets()

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        return [Header("I64", sources[0].shape)]

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        import numpy as np

        return [sources[0].astype(np.int64) - np.arange(len(sources[0]))]


@dataclass(frozen=True, slots=True)
class AbsoluteFromOffsets:
    """The inverse: absolute target ids of each draft id."""

    name: str = "absolute ids from offsets"

    @property
    def inverse(self) -> OffsetsFromAbsolute:
        return OffsetsFromAbsolute()

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        return [Header("I64", sources[0].shape)]

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        import numpy as np

        return [sources[0].astype(np.int64) + np.arange(len(sources[0]))]


@dataclass(frozen=True, slots=True)
class Membership:
    """`t2d` rebuilt from `d2t` offsets: true for every target token that some draft token stands for."""

    name: str = "membership of offsets"
    inverse: None = None

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        return [Header("BOOL", (size("vocabulary"),))]

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        import numpy as np

        members = np.zeros(outputs[0].shape, dtype=np.bool_)
        targets = sources[0] + np.arange(len(sources[0]))
        if ((targets < 0) | (targets >= len(members))).any():
            raise ValueError(f"stands for tokens outside the vocabulary of {len(members)}")
        members[targets] = True
        return [members]


@dataclass(frozen=True, slots=True)
class Fuse:
    """Several matrices stacked by rows, as inference engines store q, k, v or gate, up."""

    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"stack {len(self.parts)} by rows"

    @property
    def inverse(self) -> Split:
        return Split(self.parts)

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        if not all(source.shape for source in sources):
            raise ValueError("a part is a single number, not a matrix")
        if len({(source.dtype, source.shape[1:]) for source in sources}) != 1:
            raise ValueError("the parts differ in dtype or width")
        return [Header(sources[0].dtype, (sum(s.shape[0] for s in sources), *sources[0].shape[1:]))]

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        import numpy as np

        return [np.concatenate(sources)]


@dataclass(frozen=True, slots=True)
class Split:
    """One stacked matrix cut into its parts; ``parts`` names the rows of each, e.g. "heads*head_dim"."""

    parts: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"cut into {len(self.parts)} by rows"

    @property
    def inverse(self) -> Fuse:
        return Fuse(self.parts)

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        (source,) = sources
        rows = [size(part) for part in self.parts]
        if source.shape[:1] != (sum(rows),):
            raise ValueError(f"has shape {source.shape}, the parts {' + '.join(self.parts)} need {sum(rows)} rows")
        return [Header(source.dtype, (count, *source.shape[1:])) for count in rows]

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        import numpy as np

        cuts = np.cumsum([output.shape[0] for output in outputs])[:-1]
        return [np.ascontiguousarray(part) for part in np.split(sources[0], cuts)]


@dataclass(frozen=True, slots=True)
class RotaryHalves:
    """Rows of query or key heads, from code that rotates neighbours (0 with 1) to servers' order (0 with width/2).

    Products of queries and keys that are reordered alike stay the same. The first ``rows`` rows are heads of ``width``,
    the others stay; None: all are. ``undo``: the way back.
    """

    width: int
    rows: int | None = None
    undo: bool = False

    @property
    def name(self) -> str:
        return "rotary halves to pairs" if self.undo else "rotary pairs to halves"

    @property
    def inverse(self) -> RotaryHalves:
        return replace(self, undo=not self.undo)

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        (source,) = sources
        there = source.shape[0] if source.shape else 0
        heads = there if self.rows is None else self.rows
        if self.width < 2 or self.width % 2 or heads > there or heads % self.width:
            raise ValueError(f"has {there} rows, of which {heads} are no whole heads of an even width ({self.width})")
        return list(sources)

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        import numpy as np

        (values,) = sources
        rows, more = len(values) if self.rows is None else self.rows, values.shape[1:]
        within = (2, self.width // 2) if self.undo else (self.width // 2, 2)
        heads = values[:rows].reshape(-1, *within, *more).swapaxes(1, 2)
        return [np.concatenate((heads.reshape(rows, *more), values[rows:]))]


@dataclass(frozen=True, slots=True)
class Then:
    """One operation on the results of another.

    The first one is run with the headers of the last one's results: it may read their shapes only where both agree.
    """

    first: Operation
    last: Operation

    @property
    def name(self) -> str:
        return f"{self.first.name}, {self.last.name}"

    @property
    def inverse(self) -> Then | None:
        first, last = self.last.inverse, self.first.inverse
        return Then(first, last) if first and last else None

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        return self.last.outputs(self.first.outputs(sources, size), size)

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        return self.last.run(self.first.run(sources, outputs), outputs)


@dataclass(frozen=True, slots=True)
class Stack:
    """Matrices of one shape as the slabs of one tensor: ``each`` of them, by rows, make a slab (an expert's)."""

    slabs: int
    each: int

    @property
    def name(self) -> str:
        return f"stack {self.slabs} slabs of {self.each}"

    @property
    def inverse(self) -> Unstack:
        return Unstack(self.slabs, self.each)

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        if len(sources) != self.slabs * self.each or not all(source.shape for source in sources):
            raise ValueError(f"{self.slabs} slabs of {self.each} are not made of {len(sources)} such tensors")
        if len(set(sources)) != 1:
            raise ValueError("the parts differ in dtype or shape")
        rows, *rest = sources[0].shape
        return [Header(sources[0].dtype, (self.slabs, self.each * rows, *rest))]

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        import numpy as np

        return [np.concatenate(sources).reshape(outputs[0].shape)]


@dataclass(frozen=True, slots=True)
class Unstack:
    """The inverse: every slab cut by rows into ``each`` matrices of one shape."""

    slabs: int
    each: int

    @property
    def name(self) -> str:
        return f"cut {self.slabs} slabs into {self.each}"

    @property
    def inverse(self) -> Stack:
        return Stack(self.slabs, self.each)

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        (source,) = sources
        if len(source.shape) < 2 or source.shape[0] != self.slabs or source.shape[1] % self.each:
            raise ValueError(f"has shape {source.shape}, not {self.slabs} slabs of {self.each} parts")
        part = Header(source.dtype, (source.shape[1] // self.each, *source.shape[2:]))
        return [part] * (self.slabs * self.each)

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        return list(sources[0].reshape(len(outputs), *outputs[0].shape))


def only_cuts(operation: Operation) -> bool:
    """Whether the bytes of all results, one after the other, are those of the sources: nothing has to be read."""
    return isinstance(operation, Identity | Fuse | Split | Stack | Unstack)
