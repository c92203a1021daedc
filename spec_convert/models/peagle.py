"""The P-EAGLE draft (arXiv 2602.01469): an EAGLE-3 draft whose later tokens are guessed beside masks, in one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spec_convert.models.contract import DraftStates, positions
from spec_convert.models.eagle3 import Eagle3Draft
from spec_convert.models.layers import Attend, causal
from spec_convert.unified import PEagleConfig


class PEagleDraft(Eagle3Draft):
    """Rows come in two kinds: with a token and the verifier's state, and masked, where neither is known yet.

    A masked row embeds the mask token beside `mask_hidden`, fused as a state of the verifier is. A server appends K - 1
    of them, at the next positions, to the rows that the verifier has read: the last of these and each masked one guess
    a token. Since nothing is fed back, taking the steps one after the other with a cache is the same function.
    """

    def __init__(self, config: PEagleConfig, *, embed_tokens: Tensor | None, lm_head: Tensor | None) -> None:
        """See `Eagle3Draft`."""
        super().__init__(config, embed_tokens=embed_tokens, lm_head=lm_head)
        self.mask_token_id = config.mask_token_id
        self.mask_hidden = nn.Parameter(torch.randn(1, 1, self.fc.in_features))

    def states(
        self,
        input_ids: Tensor,
        hidden_states: Tensor,
        position_ids: Tensor | None = None,
        *,
        fed_back: bool | None = None,
        attend: Attend = causal,
    ) -> DraftStates:
        """Of later steps (``fed_back``) all rows are masked: of what they are given their places alone count."""
        if self._is_fed_back(hidden_states, fed_back):
            return self.masked(positions(input_ids, position_ids).expand_as(input_ids), attend=attend)
        return super().states(input_ids, hidden_states, position_ids, fed_back=False, attend=attend)

    def masked(self, position_ids: Tensor, *, attend: Attend) -> DraftStates:
        """Masked rows at these positions [B, T]."""
        masks = torch.full_like(position_ids, self.mask_token_id)
        state = self.fuse(self.mask_hidden).expand(*position_ids.shape, -1)
        return self.decode(masks, state, position_ids, attend=attend)
