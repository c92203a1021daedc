"""NeMo Automodel's spelling: the backbone behind `model.`, and the verifier's config with a few keys of the draft's.

Its draft code reads the sizes, the activation and the rope of that config, and passes over what else shapes the
verifier's layers (sliding windows, multipliers, capped logits); EAGLE-3 drafts have one layer whatever it counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.formats import Layout
from spec_convert.plugins.families import eagle3
from spec_convert.plugins.families.neutral import NEUTRAL
from spec_convert.rules import found
from spec_convert.tensor_map import TensorMap

ARCHITECTURE = "LlamaEagle3DraftModel"
PREFIX = "model."
OUTSIDE = ("lm_head.weight", "d2t", "t2d", "mask_hidden")
PASSED_OVER = frozenset(NEUTRAL) - {"partial_rotary_factor", "quantization_config"}
HEAD = "lm_head.weight"


def trained(checkpoint: Checkpoint) -> bool:
    """NeMo's marks: its architecture, its prefix, or the key that its exports for servers, without both, still hold."""
    renamed = checkpoint.architecture == "LlamaForCausalLMEagle3" and checkpoint.get("parallel_drafting") is not None
    return checkpoint.architecture == ARCHITECTURE or is_nested(checkpoint) or renamed


def is_nested(checkpoint: Checkpoint) -> bool:
    """Whether the backbone stands behind the prefix. NeMo's own export for vLLM takes it away."""
    return f"{PREFIX}fc.weight" in checkpoint


def flat(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint as the other dialects spell it."""
    if not is_nested(checkpoint):
        return checkpoint
    return replace(checkpoint, tensors={name.removeprefix(PREFIX): t for name, t in checkpoint.tensors.items()})


def nested(table: TensorMap) -> TensorMap:
    """The rows of a flat table for names with the prefix."""
    outside = [row for row in table if row.text in OUTSIDE or row.derived]
    inside = [row for row in table if row not in outside]
    return TensorMap(TensorMap(*inside).under(PREFIX, ""), *outside)


def facts_of(checkpoint: Checkpoint) -> Facts:
    """config.json without what the draft's code passes over."""
    facts = Facts.of(checkpoint)
    unread = PASSED_OVER if facts.get("parallel_drafting") else PASSED_OVER | {"num_hidden_layers"}
    return replace(facts, values={key: value for key, value in facts.values.items() if key not in unread})


def layout(checkpoint: Checkpoint, facts: Facts, of_flat: Callable[[Checkpoint], Layout]) -> Layout:
    """What ``of_flat`` makes of the flat checkpoint, in the file's own names."""
    seen = flat(checkpoint)
    _require_map(seen, facts)
    made = of_flat(seen)
    table = eagle3.always(made.table, HEAD)
    return replace(made, table=nested(table) if is_nested(checkpoint) else table)


def _require_map(checkpoint: Checkpoint, facts: Facts) -> None:
    """Older releases left the vocabulary map out of the draft's file."""
    sizes = facts.require({"vocab_size": int, "draft_vocab_size": int})
    kept, known = sizes["draft_vocab_size"], sizes["vocab_size"]
    if "d2t" in checkpoint or kept >= known:
        return
    message = (
        f"the head knows {kept} of {known} tokens and no `d2t` says which: older releases of NeMo Automodel kept them "
        "in eagle_meta.pt alone, and servers would take the first tokens"
    )
    hint = "put both maps into the weights, of the ids in `selected_token_ids`: d2t[i] = ids[i] - i, t2d[ids] = true"
    raise Refused([found("d2t-missing", where="d2t", message=message, hint=hint)])
