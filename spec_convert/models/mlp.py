"""The MLP draft: it guesses from the last token alone, without attention and without the verifier's states."""

from __future__ import annotations

from torch import Tensor, nn

from spec_convert.models.contract import Draft, DraftStates
from spec_convert.models.layers import Attend, causal
from spec_convert.unified import EagleMlpConfig


class MlpDraft(Draft):
    def __init__(self, config: EagleMlpConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.embeddings = nn.Embedding(config.vocab_size, size)
        self.mlp = blocks(size, config.mlp_layers, config.layer_norm_eps)
        self.lm_head = nn.Linear(size, config.vocab_size, bias=False)

    def states(
        self,
        input_ids: Tensor,
        hidden_states: Tensor,
        position_ids: Tensor | None = None,
        *,
        fed_back: bool | None = None,
        attend: Attend = causal,
    ) -> DraftStates:
        del hidden_states, position_ids, fed_back, attend  # the last token is all it knows
        x = self.mlp(self.embeddings(input_ids))
        return DraftStates(x, x)


def blocks(size: int, layers: int, eps: float) -> nn.Sequential:
    """Linear, ReLU, LayerNorm, as often as there are layers: [..., H] -> [..., H]."""
    parts = [(nn.Linear(size, size), nn.ReLU(), nn.LayerNorm(size, eps)) for _ in range(layers)]
    return nn.Sequential(*(part for block in parts for part in block))
