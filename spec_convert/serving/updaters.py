"""What vLLM's model config of a draft has to hold, written from the unified config.

vLLM hands an updater the draft's `config.json` and the dict that its whole model config will be made of: the draft's
`transformer_layer_config`, or an empty one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]

# An MLP knows no positions. vLLM stops drafting beyond the length that a draft's config states, and without one states
# 2048 itself.
ANY_LENGTH = 1 << 30

EAGLE_KEYS = ("fusion_bias", "layernorms", "layernorm_position")
MLP_KEYS = ("hidden_size", "vocab_size", "mlp_layers", "hidden_act", "layer_norm_eps")


@dataclass(frozen=True)
class Updater:
    """How drafts of one type become a model config. ``keys``: what a directory written by spec-convert always holds."""

    kind: str
    keys: tuple[str, ...]
    write: Callable[[Config, Config], None]

    def reads(self, config: Config) -> bool:
        return all(key in config for key in self.keys)

    def update(self, config: Config, model_config: Config) -> None:
        """Fill ``model_config`` in place. Raises ValueError for a directory of another tool."""
        if not self.reads(config):
            absent = ", ".join(key for key in self.keys if key not in config)
            raise ValueError(
                f"this config.json of type `{self.kind}` lacks {absent}: it was not written by spec-convert. "
                "Make one that can be served: spec-convert convert SOURCE OUTPUT --verifier BASE"
            )
        self.write(config, model_config)


def _write_eagle(config: Config, model_config: Config) -> None:
    model_config |= {key: config[key] for key in EAGLE_KEYS}
    model_config["architectures"] = ["UnifiedEagleForCausalLM"]


def _write_mlp(config: Config, model_config: Config) -> None:
    model_config |= {key: config[key] for key in MLP_KEYS}
    model_config |= {
        "architectures": ["UnifiedMlpForCausalLM"],
        "max_position_embeddings": ANY_LENGTH,
        # vLLM divides these by the number of GPUs; the model has none and does not read them.
        "num_hidden_layers": 1,
        "num_attention_heads": 0,
        "num_key_value_heads": 0,
    }


update_eagle = Updater("eagle", EAGLE_KEYS, _write_eagle)
update_eagle_mlp = Updater("eagle_mlp", MLP_KEYS, _write_mlp)


def drops_biases(model_config: Config) -> bool:
    """Whether vLLM's EAGLE-3 model of these layers lacks biases: its Qwen3 has them on q, k and v alone."""
    return model_config.get("model_type") == "qwen3" and any(
        model_config.get(key) for key in ("attention_bias", "mlp_bias")
    )


def mistakes_windows(config: Config) -> bool:
    """Whether vLLM shows the rows of some layers of a DFlash or DSpark draft other rows than they were trained to see.

    It reads `sliding_window_non_causal` as a word about every layer of a DFlash draft, and not at all of a DSpark one.
    """
    causal = config.get("sliding_window_non_causal") is False
    types = set(config["transformer_layer_config"].get("layer_types") or [])
    if config.get("speculators_model_type") == "dspark":
        return "sliding_attention" in types and not causal
    return causal and types != {"sliding_attention"}


def show_windows(config: Config, model_config: Config) -> None:
    """Say of a model config that vLLM has made of such a draft what is meant."""
    if config.get("speculators_model_type") == "dspark":
        model_config["is_causal"] = False
    else:
        del model_config["dflash_config"]["causal"]  # vLLM then goes by the types of the layers
