"""The DFlash draft (arXiv 2602.06036): a block of masks filled in one pass, beside the verifier's states as context."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spec_convert.models.cache import Cache
from spec_convert.models.contract import DraftStates, positions, table
from spec_convert.models.layers import Attend, DecoderLayer, causal
from spec_convert.models.rope import Rope
from spec_convert.models.vocabulary import OwnVocabulary
from spec_convert.unified import BlockConfig


class DFlashDraft(OwnVocabulary):
    """Row i stands for a whole block: its newest token is ``input_ids[:, i]``, one place after the state beside it.

    The states of rows up to i are its context. Every guess of the block comes of the one pass: the first is what the
    row answers, the others are the state that it hands on, from which each later step takes the next.
    """

    def __init__(self, config: BlockConfig, *, embed_tokens: Tensor | None, lm_head: Tensor | None) -> None:
        """``embed_tokens`` and ``lm_head`` are the verifier's; None: the draft has its own."""
        super().__init__()
        self.config = config
        layer = config.transformer_layer_config
        size, eps = layer.hidden_size, layer.rms_norm_eps
        self.aux_states = len(config.aux_hidden_state_layer_ids)
        self.embed_tokens = table(layer.vocab_size, size, embed_tokens, name="embedding")
        self.fc = nn.Linear(self.aux_states * (config.target_hidden_size or size), size, bias=False)
        self.hidden_norm = nn.RMSNorm(size, eps)
        self.rope = Rope.of(layer)
        layers = (DecoderLayer(layer, index, input_norm=True) for index in range(layer.num_hidden_layers))
        self.layers = nn.ModuleList(layers)
        self.norm = nn.RMSNorm(size, eps)
        self.lm_head = table(config.draft_vocab_size, size, lm_head, name="head")
        self.reduced = self._add_vocabulary(config.draft_vocab_size, layer.vocab_size)
        self.expect(config.speculators_config.proposal_methods[0].speculative_tokens)

    def expect(self, tokens: int) -> None:
        """A server puts as many masks into a block as it wants guesses, and every row of a block sees the others."""
        self.guesses = tokens

    def states(
        self,
        input_ids: Tensor,
        hidden_states: Tensor,
        position_ids: Tensor | None = None,
        *,
        fed_back: bool | None = None,
        attend: Attend = causal,
    ) -> DraftStates:
        if not fed_back:
            guesses = self.block(input_ids, hidden_states, positions(input_ids, position_ids), attend)
        elif hidden_states.shape[-1]:
            guesses = hidden_states.reshape(*hidden_states.shape[:2], -1, self.fc.out_features)
        else:
            raise ValueError(
                f"all {self.guesses} guesses of the block are taken: `expect` says how many there are to be"
            )
        return DraftStates(guesses[:, :, 0], guesses[:, :, 1:].flatten(-2))

    def block(self, newest: Tensor, states: Tensor, places: Tensor, attend: Attend) -> Tensor:
        """[B, T, K, H]: all guesses of the blocks after each of these rows [B, T], whose states stand at ``places``."""
        context, places = self.hidden_norm(self.fc(states)), places.expand_as(newest)
        held = attend if isinstance(attend, Cache) else None
        if held is None and attend is not causal:
            raise ValueError("blocks see their context through a cache or all at once: `attend` is neither")
        before = held.length if held else 0
        known = places[:, :1] - before + torch.arange(before + places.shape[1], device=places.device)
        rows = places[:, :, None] + 1 + torch.arange(self.first_guess + self.guesses, device=places.device)
        masks = self._visible(known, rows)
        turned, rotation = self.rope(places), self.rope(rows.flatten(1))
        x = F.embedding(self._tokens(newest, rows), self.embed_tokens.weight)
        for number, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            key, value = layer.self_attn.keys_and_values(context, turned)
            if held:
                key, value = held.extend(number, key, value)
            mask = masks[self.config.transformer_layer_config.layer_types[number]]
            x = layer(x, rotation, _beside(key, value, mask))
        normed: Tensor = self.norm(x)
        return normed.reshape(*rows.shape, -1)[:, :, self.first_guess :]

    @property
    def first_guess(self) -> int:
        """The row of the block that guesses first: the newest token's own, or the one behind it."""
        return 0 if self.config.sample_from_anchor else 1

    def _tokens(self, newest: Tensor, rows: Tensor) -> Tensor:
        """[B, T * R]: the newest token of each block, and masks."""
        tokens = torch.full(rows.shape, self.config.mask_token_id, device=rows.device)
        tokens[:, :, 0] = newest
        return tokens.flatten(1)

    def _visible(self, known: Tensor, rows: Tensor) -> dict[str, Tensor]:
        """By layer type, which keys (context, then all blocks) a row sees: [B, 1, T * R, S + T * R]."""
        blocks = torch.arange(rows.shape[1], device=rows.device).repeat_interleave(rows.shape[2])
        query, newest = rows.flatten(1)[:, :, None], rows[:, :, :1].expand_as(rows).flatten(1)[:, :, None]
        of_context = known[:, None] < newest
        of_block = (blocks[:, None] == blocks).expand(len(rows), -1, -1)
        distance = query - torch.cat((known.expand(len(rows), -1), rows.flatten(1)), dim=1)[:, None]
        full = torch.cat((of_context, of_block), dim=-1)
        masks = {"full_attention": full[:, None]}
        if (window := self.config.transformer_layer_config.sliding_window) is not None:
            near = distance.abs() < window
            shown = near if self.config.sliding_window_non_causal else near & (distance >= 0)
            masks["sliding_attention"] = (full & shown)[:, None]
        return masks


def _beside(key: Tensor, value: Tensor, mask: Tensor) -> Attend:
    """Rows that see a context, whose keys and values these are, and rows of their own."""

    def attend(layer: int, query: Tensor, own_key: Tensor, own_value: Tensor) -> Tensor:
        del layer
        keys, values = torch.cat((key.to(own_key.dtype), own_key), dim=2), torch.cat((value, own_value), dim=2)
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, enable_gqa=True)

    return attend
