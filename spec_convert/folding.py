"""Operations that write the same function in other tensors: a bias inside an embedding, an MLP as a table.

They compute in float64, in blocks of rows, so that memory stays flat, and round once, to the dtype that is stored.
None has an inverse: what they were made of cannot be read back, so an export that uses one says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spec_convert.operations import Cast, Header, Size

if TYPE_CHECKING:
    import numpy as np

ROWS = 4096  # of a table at a time


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that the target asks for and the source has no use for: zeros, ones, or an identity and zeros."""

    kind: str  # "zeros", "ones" or "identity"
    shape: tuple[str, ...]
    dtype: str
    inverse: None = None

    @property
    def name(self) -> str:
        return self.kind

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        return [Header(self.dtype, tuple(size(term) for term in self.shape))]

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        import numpy as np

        shape = outputs[0].shape
        values = np.full(shape, 1.0 if self.kind == "ones" else 0.0)
        if self.kind == "identity":
            np.fill_diagonal(values, 1.0)
        return [_stored(values, self.dtype)]


@dataclass(frozen=True, slots=True)
class FoldBias:
    """EAGLE-1's `fc.bias` inside the embedding: every row e becomes e + d, where W d = b and fc.weight = [W | …].

    Sources: fc.weight [H, 2H], fc.bias [H], the embedding [V, H], of these ``dtypes``; ``dtype`` is stored.
    """

    dtypes: tuple[str, str, str]
    dtype: str
    name: str = "fold the fusion bias"
    inverse: None = None

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        return [Header(self.dtype, sources[2].shape)]

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        weight, bias, table = sources
        shift = self.shift(weight, bias)
        return [_by_rows(table, lambda rows: _stored(_wide(rows, self.dtypes[2]) + shift, self.dtype))]

    def shift(self, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """The vector d, float64 [H]. Raises ValueError when W is singular."""
        import numpy as np

        try:
            return np.linalg.solve(self._embedding_half(weight), _wide(bias, self.dtypes[1]))
        except np.linalg.LinAlgError as reason:
            raise ValueError("the embedding half of fc.weight is singular") from reason

    def condition(self, weight: np.ndarray) -> float:
        """The condition number of W in the 1-norm; infinite when W is singular."""
        import numpy as np

        return float(np.linalg.cond(self._embedding_half(weight), 1))

    def residual(self, weight: np.ndarray, bias: np.ndarray, table: np.ndarray) -> float:
        """The largest |W (e' - e) - b| / |b| over the rows e of the table, with e' as it is stored (2-norms)."""
        import numpy as np

        half, wanted = self._embedding_half(weight), _wide(bias, self.dtypes[1])
        shift = self.shift(weight, bias)
        unsolved, narrow, worst = half @ shift - wanted, half.T.astype(np.float32), 0.0
        for rows in _blocks(table):
            wide = _wide(rows, self.dtypes[2])
            # What storing rounds away is small: float32 is enough to see where fc takes it.
            rounded = _wide(_stored(wide + shift, self.dtype), self.dtype) - wide - shift
            left = rounded.astype(np.float32) @ narrow + unsolved
            worst = max(worst, float(np.linalg.norm(left, axis=1).max(initial=0.0)))
        return worst / float(np.linalg.norm(wanted))

    def _embedding_half(self, weight: np.ndarray) -> np.ndarray:
        return _wide(weight[:, : weight.shape[0]], self.dtypes[0])


@dataclass(frozen=True, slots=True)
class MlpTable:
    """The MLP draft's states for every token: (Linear, ReLU, LayerNorm) repeated, applied to the whole embedding.

    Sources: the embedding [V, H], then weight and bias of each linear and of the norm after it, of these ``dtypes``.
    """

    dtypes: tuple[str, ...]
    dtype: str
    eps: float
    name: str = "apply the MLP to every token"
    inverse: None = None

    def outputs(self, sources: Sequence[Header], size: Size) -> list[Header]:
        return [Header(self.dtype, sources[0].shape)]

    def run(self, sources: Sequence[np.ndarray], outputs: Sequence[Header]) -> list[np.ndarray]:
        table, *parts = sources
        wide = [_wide(part, dtype) for part, dtype in zip(parts, self.dtypes[1:], strict=True)]
        blocks = [wide[start : start + 4] for start in range(0, len(wide), 4)]

        def states(rows: np.ndarray) -> np.ndarray:
            x = _wide(rows, self.dtypes[0])
            for weight, bias, scale, offset in blocks:
                x = self._block(x, weight, bias) * scale + offset
            return _stored(x, self.dtype)

        return [_by_rows(table, states)]

    def _block(self, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Linear, ReLU, and LayerNorm without its scale and offset."""
        import numpy as np

        x = np.maximum(x @ weight.T + bias, 0)
        centred = x - x.mean(axis=1, keepdims=True)
        normed: np.ndarray = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + self.eps)
        return normed


def _wide(values: np.ndarray, dtype: str) -> np.ndarray:
    """Stored values as float64."""
    return Cast("F64", dtype).run([values], ())[0]


def _stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """float64 values as they are stored. Raises ValueError when one would become infinite."""
    return Cast(dtype, "F64").run([values], ())[0]


def _blocks(table: np.ndarray) -> Iterator[np.ndarray]:
    return (table[start : start + ROWS] for start in range(0, len(table), ROWS))


def _by_rows(table: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    import numpy as np

    return np.concatenate([change(rows) for rows in _blocks(table)])
