"""What the loop of the capture asks of an engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Chunk = Sequence[Sequence[int]]  # the token ids of some samples, which will be one shard


class Engine(Protocol):
    """Reads token ids, and yields the states of the layers that it was made for.

    ``layer_ids`` are boundary ids in ascending order; that of the number of layers is before the final norm.
    """

    name: str

    def capture(self, chunks: Iterable[Chunk]) -> Iterator[list[Tensor]]:
        """For each chunk, in order, the states [T, L, H] of each of its samples, in the wanted dtype, on the CPU.

        Each list is the caller's, who empties it.

        An engine may read ahead, but what it yields for a chunk must not depend on the other chunks: a run that is
        killed and goes on must end with the same data. Raises UsageError.
        """
        ...
