"""The EAGLE-3 draft (arXiv 2503.01840): several states of the verifier fused into one, an optional small vocabulary."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spec_convert.models.contract import DraftStates, positions, table
from spec_convert.models.layers import Attend, DecoderLayer, FusionLayer, causal
from spec_convert.models.rope import Rope
from spec_convert.models.vocabulary import OwnVocabulary
from spec_convert.unified import FusedConfig


class Eagle3Draft(OwnVocabulary):
    def __init__(self, config: FusedConfig, *, embed_tokens: Tensor | None, lm_head: Tensor | None) -> None:
        """``embed_tokens`` and ``lm_head`` are the verifier's; None: the draft has its own."""
        super().__init__()
        self.config = config
        layer = config.transformer_layer_config
        size, eps = layer.hidden_size, layer.rms_norm_eps
        self.state_width = config.target_hidden_size or size
        self.aux_states = layer.num_aux_hidden_states
        self.embed_tokens = table(layer.vocab_size, size, embed_tokens, name="embedding")
        if config.norm_before_fc:
            self.input_norm = nn.RMSNorm(self.aux_states * self.state_width, eps)
        if config.fc_norm:
            self.fc_norm = nn.ModuleList(nn.RMSNorm(self.state_width, eps) for _ in range(self.aux_states))
        self.fc = nn.Linear(self.aux_states * self.state_width, size, bias=False)
        self.rope = Rope.of(layer)
        first = FusionLayer(layer, norm_before_residual=config.norm_before_residual)
        later = (DecoderLayer(layer, index, input_norm=True) for index in range(1, layer.num_hidden_layers))
        self.layers = nn.ModuleList([first, *later])
        self.norm = nn.RMSNorm(size, eps)
        self.lm_head = table(config.draft_vocab_size, size, lm_head, name="head")
        self.reduced = self._add_vocabulary(config.draft_vocab_size, layer.vocab_size)

    def states(
        self,
        input_ids: Tensor,
        hidden_states: Tensor,
        position_ids: Tensor | None = None,
        *,
        fed_back: bool | None = None,
        attend: Attend = causal,
    ) -> DraftStates:
        x = hidden_states if self._is_fed_back(hidden_states, fed_back) else self.fuse(hidden_states)
        return self.decode(input_ids, x, position_ids, attend=attend)

    def decode(
        self, input_ids: Tensor, x: Tensor, position_ids: Tensor | None = None, *, attend: Attend = causal
    ) -> DraftStates:
        """The layers, on tokens [B, T] beside states of the draft's own width [B, T, H]."""
        embedding = F.embedding(input_ids, self.embed_tokens.weight)
        rotation = self.rope(positions(input_ids, position_ids))
        first, *later = self.layers
        x = first(embedding, x, rotation, attend)
        for layer in later:
            x = layer(x, rotation, attend)
        normed = self.norm(x)
        return DraftStates(normed, normed if self.config.norm_output else x)

    def fuse(self, states: Tensor) -> Tensor:
        """The verifier's states, concatenated low to high [B, T, n * Ht], as one state of the draft [B, T, H]."""
        if self.config.norm_before_fc:
            states = self.input_norm(states)
        if self.config.fc_norm:
            parts = states.chunk(self.aux_states, dim=-1)
            states = torch.cat([norm(part) for norm, part in zip(self.fc_norm, parts, strict=True)], dim=-1)
        fused: Tensor = self.fc(states)
        return fused

    def _is_fed_back(self, hidden_states: Tensor, said: bool | None) -> bool:
        width, own, verifier = hidden_states.shape[-1], self.fc.out_features, self.fc.in_features
        if width not in (own, verifier):
            raise ValueError(f"hidden_states are {width} wide: neither {verifier} (verifier) nor {own} (own output)")
        if said is None and own == verifier:
            raise ValueError(f"hidden_states of width {width} may be the verifier's or the draft's: say fed_back=…")
        if said is not None and width != (own if said else verifier):
            raise ValueError(f"hidden_states are {width} wide, which contradicts fed_back={said}")
        return width == own if said is None else said
