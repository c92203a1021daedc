"""EAGLE drafts with a fusion bias or layernorms, in vLLM. The function is that of `spec_convert.models.eagle`.

vLLM's EAGLE model calls `fc(concat(embedding, state))` once, so all that unified drafts add before the first layer can
live behind that one call. Its `forward` stays vLLM's own, compiled or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from spec_convert.serving.loading import strictly
from spec_convert.serving.versions import needed

with needed():
    from vllm.config import VllmConfig
    from vllm.distributed import get_pp_group
    from vllm.model_executor.layers.layernorm import RMSNorm
    from vllm.model_executor.layers.linear import ReplicatedLinear
    from vllm.model_executor.models.llama_eagle import EagleLlamaForCausalLM
    from vllm.model_executor.models.utils import AutoWeightsLoader, maybe_prefix

EMBEDDING = "embed_tokens.weight"
# Where the tensors go that are not below `model` under their own name, and back.
PLACES = {
    "fc.weight": "model.fc.linear.weight",
    "fc.bias": "model.fc.linear.bias",
    "embed_layernorm.weight": "model.fc.embed_layernorm.weight",
    "hidden_layernorm.weight": "model.fc.hidden_layernorm.weight",
    "lm_head_layernorm.weight": "lm_head_layernorm.weight",
}
NAMES = {place: name for name, place in PLACES.items()}


class Fusion(nn.Module):
    """Embedding and verifier state, each normed when the checkpoint says so, as one state: [N, 2H] -> [N, H]."""

    def __init__(self, config: Any, *, dtype: Any, quant_config: Any, prefix: str) -> None:
        super().__init__()
        before = config.layernorm_position == "before_fusion"
        self.embed_layernorm = norm(config, config.layernorms)
        self.hidden_layernorm = norm(config, before)
        self.linear = ReplicatedLinear(
            input_size=2 * config.hidden_size,
            output_size=config.hidden_size,
            bias=config.fusion_bias,
            params_dtype=dtype,
            quant_config=quant_config,
            prefix=prefix,
            return_bias=False,
        )

    def forward(self, both: Tensor) -> Tensor:
        embedding, state = both.chunk(2, dim=-1)
        fused: Tensor = self.linear(torch.cat((self.embed_layernorm(embedding), self.hidden_layernorm(state)), dim=-1))
        return fused


class UnifiedEagleForCausalLM(EagleLlamaForCausalLM):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        config = self.config
        refuse_other_width(config.hidden_size, vllm_config)
        model: Any = self.model
        model.fc = Fusion(
            config,
            dtype=vllm_config.model_config.dtype,
            quant_config=model.quant_config,
            prefix=maybe_prefix(prefix, "model.fc"),
        )
        if config.layernorm_position == "after_fusion":
            model.layers[0].input_layernorm = norm(config, True)
        self.lm_head_layernorm = norm(config, config.layernorms)

    def forward(
        self, input_ids: Tensor, positions: Tensor, hidden_states: Tensor, inputs_embeds: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The states for the head, and those for the next step, which no norm has touched."""
        _, states = super().forward(input_ids, positions, hidden_states, inputs_embeds)
        return self.lm_head_layernorm(states), states

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Every tensor of the checkpoint into its parameter; raises ValueError when they do not fit one to one."""
        given, parameters = dict(weights), dict(self.named_parameters())
        strictly(given, [NAMES.get(name, name.removeprefix("model.")) for name in parameters], shared=[EMBEDDING])
        self.has_own_embed_tokens = EMBEDDING in given
        if not self.has_own_embed_tokens and get_pp_group().world_size > 1:
            raise ValueError(
                "the draft uses its verifier's embedding, which another pipeline stage holds: serve it with "
                "--pipeline-parallel-size 1"
            )
        AutoWeightsLoader(self).load_weights((PLACES.get(name, f"model.{name}"), given[name]) for name in given)
        return set(parameters)


def norm(config: Any, present: bool) -> nn.Module:
    return RMSNorm(config.hidden_size, eps=config.rms_norm_eps) if present else nn.Identity()


def refuse_other_width(width: int, vllm_config: VllmConfig) -> None:
    """One line instead of a failed copy deep in vLLM's proposer."""
    verifier = vllm_config.model_config
    if width != verifier.get_hidden_size():
        raise ValueError(
            f"the draft does not fit {verifier.model}: its hidden_size is {verifier.get_hidden_size()}, "
            f"the draft was made for {width}"
        )
