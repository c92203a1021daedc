"""The MLP draft in vLLM. The function is that of `spec_convert.models.mlp`.

The draft sees nothing but the last token, so what its MLP makes of every token is computed once, when the weights are
loaded: drafting is a look-up and the head.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from spec_convert.models.mlp import blocks
from spec_convert.serving.eagle_model import refuse_other_width
from spec_convert.serving.loading import strictly
from spec_convert.serving.versions import needed

with needed():
    from vllm.config import VllmConfig, get_layers_from_vllm_config
    from vllm.model_executor.layers.attention import Attention
    from vllm.model_executor.layers.logits_processor import LogitsProcessor
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
    from vllm.model_executor.models.interfaces import LocalArgmaxMixin
    from vllm.model_executor.models.utils import maybe_prefix
    from vllm.v1.attention.backend import AttentionType

ROWS = 8192  # tokens whose states are computed at once


class States(nn.Module):
    """Every token's state, under the name by which vLLM finds a draft's embedding."""

    def __init__(self, vocabulary: int, width: int, *, prefix: str) -> None:
        super().__init__()
        self.embed_tokens = VocabParallelEmbedding(vocabulary, width, prefix=maybe_prefix(prefix, "embed_tokens"))


class UnifiedMlpForCausalLM(nn.Module, LocalArgmaxMixin):
    # Without these vLLM puts the verifier's tables in their place. It still does so when they are equal.
    has_own_embed_tokens = True
    has_own_lm_head = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        assert vllm_config.speculative_config is not None
        config: Any = vllm_config.speculative_config.draft_model_config.hf_config
        refuse_other_width(config.hidden_size, vllm_config)
        if config.hidden_act != "relu":
            raise ValueError(f"hidden_act {config.hidden_act!r} is unknown; an MLP draft has relu")
        self.config = config
        self.model = States(config.vocab_size, config.hidden_size, prefix=maybe_prefix(prefix, "model"))
        self.lm_head = ParallelLMHead(config.vocab_size, config.hidden_size, prefix=maybe_prefix(prefix, "lm_head"))
        self.logits_processor = LogitsProcessor(config.vocab_size)
        self.idle = idle_attention(vllm_config, prefix=maybe_prefix(prefix, "model"))

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        states: Tensor = self.model.embed_tokens(input_ids)
        return states

    def forward(
        self, input_ids: Tensor, positions: Tensor, hidden_states: Tensor, inputs_embeds: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        states = self.embed_input_ids(input_ids)
        return states, states

    def compute_logits(self, hidden_states: Tensor) -> Tensor | None:
        logits: Tensor | None = self.logits_processor(self.lm_head, hidden_states)
        return logits

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Applies the MLP to every token's embedding. Raises ValueError when tensors are missing or left over."""
        config, given = self.config, dict(weights)
        table: Any = self.model.embed_tokens.weight
        head: Any = self.lm_head.weight
        mlp = blocks(config.hidden_size, config.mlp_layers, config.layer_norm_eps).to(table.device, torch.float32)
        own = [f"mlp.{name}" for name in mlp.state_dict()]
        strictly(given, [*own, "embeddings.weight", "lm_head.weight"])
        mlp.load_state_dict({name.removeprefix("mlp."): given[name] for name in own})
        table.weight_loader(table, applied(mlp, given["embeddings.weight"], like=table))
        head.weight_loader(head, given["lm_head.weight"])
        return {"model.embed_tokens.weight", "lm_head.weight"}


@torch.no_grad()
def applied(mlp: nn.Module, embeddings: Tensor, *, like: Tensor) -> Tensor:
    """The MLP's output for every row, computed in float32 and kept as ``like`` is: [V, H] -> [V, H]."""
    parts = torch.split(embeddings, ROWS)
    return torch.cat([mlp(part.to(like.device, torch.float32)).to(like.dtype) for part in parts])


def idle_attention(vllm_config: VllmConfig, *, prefix: str) -> Attention:
    """An attention layer that is never called and keeps nothing: it borrows the cache of one of the verifier's.

    vLLM's proposer takes its block size and metadata from the draft's attention layers, and fails without any.
    """
    layers = get_layers_from_vllm_config(vllm_config, Attention)
    lenders = {name: layer for name, layer in layers.items() if layer.attn_type == AttentionType.DECODER}
    if not lenders:
        raise ValueError("an MLP draft needs a verifier with plain attention layers: vLLM drafts beside their cache")
    name = min(lenders, key=lambda one: lenders[one].sliding_window is not None)
    lender = lenders[name]
    number = vllm_config.model_config.get_num_layers(vllm_config.parallel_config)
    return Attention(
        lender.num_heads,
        lender.head_size,
        lender.head_size**-0.5,
        num_kv_heads=lender.num_kv_heads,
        cache_config=vllm_config.cache_config,
        per_layer_sliding_window=lender.sliding_window,
        kv_sharing_target_layer_name=name,
        prefix=f"{prefix}.layers.{number}.self_attn.attn",
    )
