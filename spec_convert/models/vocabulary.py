"""Drafts with a vocabulary of their own: the tokens that they can say, and what those are called by the verifier."""

from __future__ import annotations

import torch
from torch import Tensor

from spec_convert.models.contract import Draft
from spec_convert.models.errors import DraftError


class OwnVocabulary(Draft):
    """A draft whose head knows the verifier's tokens, or some of them."""

    reduced: bool
    d2t: Tensor
    t2d: Tensor

    def kept_tokens(self) -> Tensor | None:
        return self.target_ids() if self.reduced else None

    def to_target_vocabulary(self, logits: Tensor) -> Tensor:
        if not self.reduced:
            return logits
        everywhere = logits.new_full((*logits.shape[:-1], self.t2d.shape[0]), float("-inf"))
        return everywhere.index_copy(-1, self.target_ids(), logits)

    def target_ids(self) -> Tensor:
        """The verifier's id of each draft token: `d2t` holds offsets from the draft's id."""
        return torch.arange(self.d2t.shape[0], device=self.d2t.device) + self.d2t

    def _add_vocabulary(self, own: int, target: int) -> bool:
        if own > target:
            raise DraftError(f"draft_vocab_size {own} is larger than the verifier's vocab_size {target}")
        if own < target:
            # Until they are filled these map to no token at all, so that nothing works by accident.
            self.register_buffer("d2t", torch.full((own,), -own, dtype=torch.int64))
            self.register_buffer("t2d", torch.zeros(target, dtype=torch.bool))
        return own < target
