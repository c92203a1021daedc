"""What servers take where a unified config says nothing, and how they read its rotary embedding: facts of vLLM 0.32.

vLLM makes the draft's model config of `transformer_layer_config` alone, with no class behind it: each default is the
one of the line of code that reads the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

FUSED = ("eagle3", "peagle")  # types that vLLM reads by itself, with its model of EAGLE-3
BLOCKS = ("dflash", "dspark")  # and these, whose layers are Qwen3's whatever they say
COUNT = "num_aux_hidden_states"
AUX_IDS = "eagle_aux_hidden_state_layer_ids"


class Absent(Enum):
    """What the absence of a key means, where it is no value."""

    UNREAD = "nobody reads the key"
    REQUIRED = "servers cannot do without the key"


UNREAD = dict.fromkeys(
    (
        "architectures", "speculators_model_type", "speculators_version", "tie_word_embeddings", "torch_dtype",
        "embed_requires_grad", "transformer_layer_architecture",
    ),
    Absent.UNREAD,
)  # fmt: skip


def taken_at_top(kind: str, layer: Mapping[str, Any]) -> dict[str, Any]:
    """By key, for a draft of type ``kind``. Keys that are not named here are required."""
    if kind in BLOCKS:
        return _taken_of_block_drafts(kind, layer)
    if kind not in FUSED:
        return dict(UNREAD)  # their server is our own plugin, which refuses a config that lacks a key
    norms = {"fc_norm": False, "norm_output": False}
    return (
        UNREAD
        | (norms if kind == "eagle3" else dict.fromkeys(norms, Absent.UNREAD))
        | {
            "norm_before_residual": kind == "eagle3",
            "norm_before_fc": False,
            "draft_vocab_size": layer.get("vocab_size"),
            "target_hidden_size": layer.get("hidden_size"),
        }
    )


def _taken_of_block_drafts(kind: str, layer: Mapping[str, Any]) -> dict[str, Any]:
    """What vLLM reads of DSpark it reads of DFlash too, but for the word about windows."""
    return UNREAD | {
        "block_size": Absent.UNREAD,
        "markov_head_type": Absent.UNREAD,
        "enable_confidence_head": False,
        "confidence_head_with_markov": False,
        "sample_from_anchor": False,
        "sliding_window_non_causal": True if kind == "dflash" else Absent.UNREAD,
        "draft_vocab_size": layer.get("vocab_size"),
        "target_hidden_size": layer.get("hidden_size"),
    }


def taken_in_layer(kind: str, layer: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The same for `transformer_layer_config`. Null is read as a value where that makes a difference."""
    hidden, heads = layer.get("hidden_size"), layer.get("num_attention_heads")
    split = isinstance(hidden, int) and isinstance(heads, int) and heads > 0 and hidden // heads
    taken = UNREAD | {
        "model_type": Absent.REQUIRED if "model_type" in layer else "llama",
        "num_key_value_heads": Absent.REQUIRED if "num_key_value_heads" in layer else heads,
        "head_dim": split or Absent.REQUIRED,
        "attention_bias": False,
        "mlp_bias": False,
        "qkv_bias": False,
        COUNT: _states(layer, config),
        "layer_types": _all_full(layer.get("num_hidden_layers")),
    }
    unread = () if kind in FUSED else ("model_type", "mlp_bias") if kind in BLOCKS else ("model_type",)
    return taken | dict.fromkeys(unread, Absent.UNREAD)


def taken_in_model(layer: Mapping[str, Any]) -> dict[str, Any]:
    """The same for `model`, by which a stock vLLM serves an EAGLE-1 draft: transformers' LlamaConfig fills it up."""
    filled = {
        "num_hidden_layers": 32, "max_position_embeddings": 2048, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "num_key_value_heads": layer.get("num_attention_heads"), "model_type": Absent.REQUIRED,
        "architectures": Absent.REQUIRED,
    }  # fmt: skip
    return taken_in_layer("eagle", layer, {}) | filled


def _all_full(layers: Any) -> list[str]:
    return ["full_attention"] * layers if isinstance(layers, int) else []


def _states(layer: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """How many states `fc` is built for: only the Qwen3 model looks at the list of layer ids, both at EAGLE's own."""
    nested = layer.get("eagle_config")
    if isinstance(nested, dict) and isinstance(own := nested.get(AUX_IDS), list) and own:
        return len(own)
    ids = config.get(AUX_IDS)
    return len(ids) if layer.get("model_type") == "qwen3" and isinstance(ids, list) and ids else 3


def rope_as_served(layer: Mapping[str, Any], *, qwen3: bool) -> tuple[float, dict[str, Any] | None]:
    """The rotary base and scaling that vLLM computes with.

    `rope_parameters` and `rope_scaling` are two names of one thing there: the later one counts, even when it is null.
    Without either, and without a base, the Qwen3 model takes a base of its own.
    """
    named = [key for key in layer if key in ("rope_parameters", "rope_scaling")]
    last = layer[named[-1]] if named else None
    parameters: Mapping[str, Any] = last if isinstance(last, dict) else {}
    default = 1_000_000.0 if qwen3 and not parameters else 10_000.0
    base = next((part["rope_theta"] for part in (parameters, layer) if part.get("rope_theta") is not None), default)
    scaling = {key: value for key, value in parameters.items() if key != "rope_theta"}
    kind = scaling.get("rope_type") or scaling.get("type")
    return base, None if kind in (None, "default") else scaling
