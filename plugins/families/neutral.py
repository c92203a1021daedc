"""Config keys that change what a draft computes and have no place in the unified config: absent, neutral or refused."""

from __future__ import annotations

import reprlib
from collections.abc import Collection

from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.rules import found

# The value that changes nothing; None where only the absence of the key does.
NEUTRAL = {
    "partial_rotary_factor": 1,
    "use_sliding_window": False,
    "layer_types": "full_attention",
    "embedding_multiplier": 1,  # Granite
    "residual_multiplier": 1,
    "attention_multiplier": None,
    "logits_scaling": 1,
    "logit_scale": 1,  # Cohere
    "query_pre_attn_scalar": None,  # Gemma
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "quantization_config": None,
}


def not_neutral(*parts: Facts, understood: Collection[str] = ()) -> list[Finding]:
    """A finding for each key in these parts of config.json that servers of the unified draft would ignore.

    ``understood``: keys that its unified config carries after all.
    """
    return [
        found(
            "not-representable", where=part.where,
            message=f"`{key}` is {reprlib.repr(part.get(key))}, which the unified config cannot carry",
            hint="if the code that trained this draft ignored the key, remove it from config.json",
        )
        for part in parts
        for key, neutral in NEUTRAL.items()
        if key not in understood and part.has(key) and not _is_neutral(part.get(key), neutral)
    ]  # fmt: skip


def _is_neutral(value: object, neutral: object) -> bool:
    """A list says one thing of each layer."""
    return all(one == neutral for one in value) if isinstance(value, list) else value == neutral
