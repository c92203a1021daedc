"""The verifier's word on each token, from its last states: at the draft's tokens, or over its whole vocabulary."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spec_convert.training.losses.target import Target

BYTES = {"cpu": 32_000_000, "cuda": 512_000_000}  # of the logits that are held at once


class Word(NamedTuple):
    """What the verifier says after r tokens. ``likeliest`` [r]: of its whole vocabulary; None: not asked for."""

    target: Target
    likeliest: Tensor | None


class Teacher(nn.Module):
    """``head`` [V, Ht]: the verifier's, in the type that it is computed in.

    ``kept`` [Vd] int64: the ids of the draft's tokens; None: all of them.
    """

    head: Tensor
    kept: Tensor | None
    _rows: Tensor | None

    def __init__(self, head: Tensor, kept: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("head", head, persistent=False)
        self.register_buffer("kept", kept, persistent=False)
        self.register_buffer("_rows", None if kept is None else head[kept], persistent=False)

    @property
    def pruned(self) -> Tensor:
        """[Vd, Ht]: the head's rows of the draft's tokens."""
        return self.head if self._rows is None else self._rows

    def word(self, final: Tensor, *, whole: bool) -> Word:
        """After states ``final`` [r, Ht]. ``whole``: with the likeliest token and the sum over the whole vocabulary."""
        if not whole:
            return Word(Target(_logits(final, self.pruned), None), None)
        logits, normaliser = final.new_empty(len(final), len(self.pruned)), final.new_empty(len(final))
        likeliest = torch.empty(len(final), dtype=torch.int64, device=final.device)
        for rows in torch.split(torch.arange(len(final), device=final.device), tile_of(self.head)):
            said = _logits(final[rows], self.head)
            logits[rows] = said if self.kept is None else said[:, self.kept]
            normaliser[rows], likeliest[rows] = said.logsumexp(dim=-1), said.argmax(dim=-1)
        return Word(Target(logits, normaliser), likeliest)

    def names(self, draft_ids: Tensor) -> Tensor:
        """The verifier's ids of the draft's tokens."""
        return draft_ids if self.kept is None else self.kept[draft_ids]


def _logits(final: Tensor, head: Tensor) -> Tensor:
    """[r, V] in the type of ``final``, computed in that of ``head``."""
    return F.linear(final.to(head.dtype), head).to(final.dtype)


def tile_of(head: Tensor) -> int:
    """How many rows of logits of this head are computed at once: many are fast, and all of them are the memory.

    On a CPU more than 128 are hardly faster.
    """
    kind = head.device.type
    rows = max(64, BYTES.get(kind, BYTES["cpu"]) // (4 * len(head)))
    return min(rows, 128) if kind == "cpu" else rows
