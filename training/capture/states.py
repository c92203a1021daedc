"""Which hidden states are wanted, and whether those that somebody else computed are these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spec_convert.errors import UsageError
from spec_convert.training.capture.estimate import ITEM_BYTES

if TYPE_CHECKING:
    from torch import Tensor

EXACT = "float32"  # may be rounded to any other dtype; the others lack what was rounded off


@dataclass(frozen=True)
class Wanted:
    """States [T, len(layer_ids), hidden_size], to be stored as ``dtype``."""

    layer_ids: tuple[int, ...]
    hidden_size: int
    dtype: str

    def require_ids(self, layer_ids: Sequence[int], *, where: str) -> None:
        if tuple(layer_ids) != self.layer_ids:
            ours, theirs = (",".join(map(str, ids)) for ids in (self.layer_ids, layer_ids))
            raise UsageError(
                f"{where} captures the layers {theirs}, not {ours}", hint=f"ask for them: --layers {theirs}"
            )

    def checked(self, states: Tensor, *, tokens: int, where: Path) -> Tensor:
        """``states`` of so many tokens, in the wanted dtype.

        Raises UsageError when they are of another shape, or were rounded more.
        """
        import torch

        shape = [tokens, len(self.layer_ids), self.hidden_size]
        if list(states.shape) != shape:
            raise UsageError(
                f"{where} holds states of {list(states.shape)}, and those of {tokens} tokens in {shape[1]} layers of "
                f"the verifier are {shape}",
                hint="name the layers that were captured, with --layers; a part of the hidden size is of no use, nor "
                "is one of the text",
            )
        theirs = str(states.dtype).removeprefix("torch.")
        if theirs not in (self.dtype, EXACT):
            known = theirs in ITEM_BYTES
            raise UsageError(
                f"{where} holds {theirs}, from which no {self.dtype} can be made",
                hint=f"store it as it is: --dtype {theirs}" if known else f"states are {', '.join(ITEM_BYTES)}",
            )
        wanted: torch.dtype = getattr(torch, self.dtype)
        return states.to(wanted)
