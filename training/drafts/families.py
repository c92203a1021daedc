"""The decoder layers of a draft: what is chosen, and for all else what the verifier's config says of its own layers."""

from __future__ import annotations

from typing import Any

from spec_convert.errors import Refused, UsageError
from spec_convert.facts import Facts
from spec_convert.formats import Request
from spec_convert.plugins.families.rope import rope
from spec_convert.training.drafts.shape import DraftShape
from spec_convert.verifier import Verifier

HEEDS = frozenset({
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "hidden_act", "rms_norm_eps", "rope_theta", "rope_scaling",
    "max_position_embeddings", "attention_bias", "mlp_bias",
})  # fmt: skip
# Verifiers whose layers norm queries and keys. Drafts of all others have Llama layers.
NORMED_HEADS = frozenset({"qwen3", "qwen3_moe"})
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
HEADS = ("num_attention_heads", "num_key_value_heads", "head_dim")
# What of the verifier's own sizes is no size for a draft, by the key that tells.
UNFIT = {
    **dict.fromkeys(EXPERTS, (("intermediate_size",), "its layers are mixtures of experts")),
    "kv_lora_rank": (HEADS, "its attention is compressed (MLA), which no draft layer is"),
}


def layer_facts(verifier: Verifier, shape: DraftShape, *, may_norm_heads: bool) -> dict[str, Any]:
    """The fields of `unified.LayerConfig`.

    The activation is silu whatever the verifier has, and there are no biases: servers build draft layers like that.
    ``may_norm_heads``: whether this kind of draft may have the norms of Qwen3. Raises UsageError, with all that is
    missing, when the verifier's config does not tell a fact that nobody chose.
    """
    sizes = _sizes(verifier, shape)
    if sizes["num_attention_heads"] % sizes["num_key_value_heads"]:
        counts = (
            f"num_attention_heads is {sizes['num_attention_heads']}, num_key_value_heads {sizes['num_key_value_heads']}"
        )
        raise UsageError(counts, hint="the second must divide the first: choose both")
    theta, scaling = _rotation(verifier, shape)
    return sizes | {
        "model_type": _model_type(verifier, shape, may_norm_heads),
        "num_hidden_layers": shape.num_hidden_layers or 1,
        "vocab_size": verifier.vocab_size,
        "hidden_act": "silu",
        "rope_theta": theta,
        "rope_scaling": scaling,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
    }


def _model_type(verifier: Verifier, shape: DraftShape, may_norm_heads: bool) -> str:
    if shape.model_type == "qwen3" and not may_norm_heads:
        raise UsageError("EAGLE drafts have Llama layers, not qwen3 ones", hint="leave model_type out")
    qwen3 = may_norm_heads and verifier.text_config.get("model_type") in NORMED_HEADS
    return shape.model_type or ("qwen3" if qwen3 else "llama")


def _sizes(verifier: Verifier, shape: DraftShape) -> dict[str, Any]:
    theirs = _their_sizes(verifier)
    if shape.hidden_size and shape.num_attention_heads and not shape.head_dim:
        theirs["head_dim"] = shape.hidden_size // shape.num_attention_heads  # as transformers reads such a config
    sizes = theirs | {name: value for name, value in shape.chosen.items() if name in theirs}
    if missing := [name for name, value in sizes.items() if value is None]:
        why = {f": {said}" for key, (names, said) in UNFIT.items() if _has(verifier, key) and {*names} & {*missing}}
        raise UsageError(
            f"the config of {verifier.name} tells no draft its {', '.join(missing)}{''.join(sorted(why))}",
            hint="choose what is missing in a file: `--draft-config FILE`",
        )
    return sizes


def _their_sizes(verifier: Verifier) -> dict[str, Any]:
    """None where the verifier's config does not say."""
    text = verifier.text_config
    whole = {name: _positive(text.get(name)) for name in ("hidden_size", "intermediate_size", *HEADS)}
    hidden, heads = whole["hidden_size"], whole["num_attention_heads"]
    if text.get("num_key_value_heads") is None:
        whole["num_key_value_heads"] = heads
    if text.get("head_dim") is None and hidden and heads:
        whole["head_dim"] = hidden // heads
    for key, (names, _) in UNFIT.items():
        if _has(verifier, key):
            whole |= dict.fromkeys(names)
    epsilon = text.get("rms_norm_eps")
    return {
        **whole,
        "max_position_embeddings": _positive(text.get("max_position_embeddings")),
        "rms_norm_eps": epsilon if isinstance(epsilon, float) else None,
    }


def _has(verifier: Verifier, key: str) -> bool:
    return bool(verifier.text_config.get(key))


def _positive(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _rotation(verifier: Verifier, shape: DraftShape) -> tuple[float, dict[str, Any] | None]:
    """Base and scaling: as chosen; the verifier's when no base is chosen."""
    if shape.rope_theta is not None:
        return shape.rope_theta, shape.rope_scaling
    try:
        theta, scaling, _ = rope(Facts(verifier.text_config, f"{verifier.name}: config.json"), Request())
    except Refused as refused:
        hint = "choose rope_theta, and rope_scaling if there is to be one: `--draft-config FILE`"
        raise UsageError(f"a draft cannot rotate as this verifier does: {refused.message}", hint=hint) from refused
    return theta, shape.rope_scaling or scaling
