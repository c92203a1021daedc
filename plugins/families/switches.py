"""ModelOpt's switches in `eagle_config`, which other exporters copy: those under which servers compute the draft.

Away from these values the trainer builds another network, and most of them leave no trace in the tensors.
"""

from __future__ import annotations

from typing import Any

from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.rules import found

WITHOUT_FUSION = (
    "the draft has no `fc`: it reads one state of the verifier, the last, after the final norm, which the unified "
    "config cannot say"
)
# The value that servers compute with, and what the trainer does otherwise.
SERVED: dict[str, tuple[Any, str]] = {
    "use_aux_hidden_state": (True, WITHOUT_FUSION),
    "use_input_layernorm_in_first_layer": (True, "the state enters the first layer without a norm"),
    "use_last_layernorm": (True, "there is no norm before the head"),
    "use_mtp_layernorm": (False, "embedding and state are normed once more, by norms that are not in the file"),
    "next_layer_regular": (True, "the later layers read the embedding again"),
    "parallel_draft_step": (1, "heads beside the draft guess the tokens after its own"),
}
HINTS = {
    "use_aux_hidden_state": "vLLM's first model runner serves the checkpoint as it is; the second ignores the switch",
}


def of(facts: Facts) -> Facts:
    """`eagle_config`, empty when there is none."""
    nested = facts.get("eagle_config")
    return Facts(nested if isinstance(nested, dict) else {}, f"{facts.where}: eagle_config")


def not_served(facts: Facts) -> list[Finding]:
    """A finding for each switch that makes another network. Null means what the trainer's default means: as served."""
    switches = of(facts)
    return [
        found(
            "not-representable", where=switches.where,
            message=f"`{key}` is {switches.get(key)!r}: {why}",
            hint=HINTS.get(key, ""),
        )
        for key, (served, why) in SERVED.items()
        if switches.has(key) and switches.get(key) != served
    ]  # fmt: skip
