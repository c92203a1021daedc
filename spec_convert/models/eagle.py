"""The EAGLE draft: embedding and verifier state fused into one state, decoder layers, the verifier's head.

EAGLE-1, EAGLE-2 and HASS (arXiv 2401.15077, 2406.16858, 2408.15766) are one function: they differ in training and in
the tree search. Some checkpoints add layernorms around it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spec_convert.models.contract import Draft, DraftStates, positions, table
from spec_convert.models.layers import Attend, DecoderLayer, causal
from spec_convert.models.rope import Rope
from spec_convert.unified import EagleConfig


class EagleDraft(Draft):
    def __init__(self, config: EagleConfig, *, embed_tokens: Tensor | None, lm_head: Tensor) -> None:
        """``embed_tokens`` None: the draft has its own. The head is always the verifier's."""
        super().__init__()
        self.config = config
        layer = config.transformer_layer_config
        size = layer.hidden_size
        before, after = (config.layernorm_position == place for place in ("before_fusion", "after_fusion"))

        def norm(present: bool) -> nn.Module:
            return nn.RMSNorm(size, layer.rms_norm_eps) if present else nn.Identity()

        self.embed_tokens = table(layer.vocab_size, size, embed_tokens, name="embedding")
        self.embed_layernorm = norm(config.layernorms)
        self.hidden_layernorm = norm(before)
        self.fc = nn.Linear(2 * size, size, bias=config.fusion_bias)
        self.rope = Rope.of(layer)
        self.layers = nn.ModuleList(
            DecoderLayer(layer, index, input_norm=index > 0 or after) for index in range(layer.num_hidden_layers)
        )
        self.lm_head_layernorm = norm(config.layernorms)
        self.lm_head = table(layer.vocab_size, size, lm_head, name="head")

    def states(
        self,
        input_ids: Tensor,
        hidden_states: Tensor,
        position_ids: Tensor | None = None,
        *,
        fed_back: bool | None = None,
        attend: Attend = causal,
    ) -> DraftStates:
        del fed_back  # the verifier's state and the draft's own estimate of it enter by the same door
        width, size = hidden_states.shape[-1], self.fc.out_features
        if width != size:
            raise ValueError(f"hidden_states are {width} wide, the draft takes {size}")
        embedding = self.embed_layernorm(F.embedding(input_ids, self.embed_tokens.weight))
        x: Tensor = self.fc(torch.cat((embedding, self.hidden_layernorm(hidden_states)), dim=-1))
        rotation = self.rope(positions(input_ids, position_ids))
        for layer in self.layers:
            x = layer(x, rotation, attend)
        return DraftStates(self.lm_head_layernorm(x), x)
