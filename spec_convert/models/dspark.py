"""The DSpark draft (arXiv 2607.05147): DFlash's layers, and a bias on each guess from the token before it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spec_convert.models.contract import DraftOutput
from spec_convert.models.dflash import DFlashDraft
from spec_convert.models.layers import Attend, causal
from spec_convert.unified import DSparkConfig


class DSparkDraft(DFlashDraft):
    """Of later steps ``input_ids`` are the guesses so far: the layers have run, and the bias waits for the token."""

    def __init__(self, config: DSparkConfig, *, embed_tokens: Tensor | None, lm_head: Tensor | None) -> None:
        """See `DFlashDraft`."""
        super().__init__(config, embed_tokens=embed_tokens, lm_head=lm_head)
        layer = config.transformer_layer_config
        self.markov_head = MarkovHead(layer.vocab_size, config.draft_vocab_size, config.markov_rank)
        if config.enable_confidence_head:
            width = config.markov_rank if config.confidence_head_with_markov else 0
            self.confidence_head = ConfidenceHead(layer.hidden_size + width)

    def forward(
        self,
        input_ids: Tensor,
        hidden_states: Tensor,
        position_ids: Tensor | None = None,
        *,
        fed_back: bool | None = None,
        attend: Attend = causal,
    ) -> DraftOutput:
        plain = super().forward(input_ids, hidden_states, position_ids, fed_back=fed_back, attend=attend)
        return DraftOutput(plain.logits + self.markov_head(input_ids), plain.hidden_states)

    def confidence(self, for_head: Tensor, input_ids: Tensor) -> Tensor:
        """[B, T]: how likely the verifier is to accept each guess, when the draft has a head that tells."""
        both = torch.cat((for_head, self.markov_head.embed(input_ids)), dim=-1)
        sure: Tensor = self.confidence_head(both[..., : self.confidence_head.proj.in_features])
        return sure


class MarkovHead(nn.Module):
    """A table of transitions from token to token, [V, Vd], of low rank."""

    def __init__(self, vocabulary: int, draft_vocabulary: int, rank: int) -> None:
        super().__init__()
        self.markov_w1 = nn.Embedding(vocabulary, rank)
        self.markov_w2 = nn.Linear(rank, draft_vocabulary, bias=False)

    def embed(self, token_ids: Tensor) -> Tensor:
        return F.embedding(token_ids, self.markov_w1.weight)

    def forward(self, token_ids: Tensor) -> Tensor:
        bias: Tensor = self.markov_w2(self.embed(token_ids))
        return bias


class ConfidenceHead(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.proj(x))[..., 0]
