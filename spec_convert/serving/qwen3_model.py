"""EAGLE-3 drafts of Qwen3 layers with biases after attention or in the MLP, which vLLM's own class would drop."""

from __future__ import annotations

from typing import Any

from torch import nn

from spec_convert.serving.versions import needed

with needed():
    from vllm.config import VllmConfig
    from vllm.model_executor.layers.linear import RowParallelLinear
    from vllm.model_executor.models.llama import LlamaMLP
    from vllm.model_executor.models.qwen3_eagle3 import Eagle3Qwen3ForCausalLM
    from vllm.model_executor.models.utils import maybe_prefix


class UnifiedEagle3Qwen3ForCausalLM(Eagle3Qwen3ForCausalLM):
    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        config: Any = self.config
        layers: Any = self.model.layers
        for number, layer in enumerate(layers, start=config.target_layer_count):
            inside = maybe_prefix(prefix, f"model.layers.{number}")
            give_biases(layer, config, quant_config=self.model.quant_config, prefix=inside)


def give_biases(layer: Any, config: Any, *, quant_config: Any, prefix: str) -> None:
    """Replace what has no place for a bias. One that the checkpoint does not hold stays zero."""
    if getattr(config, "attention_bias", False):
        attention = layer.self_attn
        attention.o_proj = RowParallelLinear(
            attention.total_num_heads * attention.head_dim,
            config.hidden_size,
            bias=True,
            quant_config=quant_config,
            prefix=f"{prefix}.self_attn.o_proj",
        )
        nn.init.zeros_(attention.o_proj.bias)
    if getattr(config, "mlp_bias", False):
        layer.mlp = LlamaMLP(
            config.hidden_size,
            config.intermediate_size,
            config.hidden_act,
            quant_config=quant_config,
            bias=True,
            prefix=f"{prefix}.mlp",
        )
        nn.init.zeros_(layer.mlp.gate_up_proj.bias)
        nn.init.zeros_(layer.mlp.down_proj.bias)
