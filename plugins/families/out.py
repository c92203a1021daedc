"""What all exports share: the native config, the sizes, the verifier's tables, and how a refusal is worded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from spec_convert.envelope import DTYPE_NAMES
from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import VERIFIER_EMBEDDING, VERIFIER_HEAD, Request, UnifiedDraft
from spec_convert.operations import COPY, Cast
from spec_convert.plugins.families.rope import rope
from spec_convert.rules import found
from spec_convert.shapes import Known
from spec_convert.tensor import FLOATS
from spec_convert.tensor_map import TensorMap, move

EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"
BORROWED = {EMBEDDING: VERIFIER_EMBEDDING, HEAD: VERIFIER_HEAD}
HINT = "vLLM with spec_convert installed serves the unified directory as it is"


def layer(draft: UnifiedDraft) -> Mapping[str, Any]:
    """The part of the config that describes the decoder layers."""
    part: Mapping[str, Any] = draft.config["transformer_layer_config"]
    return part


def config(draft: UnifiedDraft, architecture: str, *, leave_out: Collection[str] = (), **more: Any) -> dict[str, Any]:
    """A native config.json: the facts of the layers at the top level, and what the layout says beyond."""
    facts = {key: value for key, value in layer(draft).items() if key not in leave_out}
    return {"architectures": [architecture], **facts, "torch_dtype": DTYPE_NAMES[draft.dtype], **more}


def sizes(draft: UnifiedDraft) -> dict[str, Known]:
    """The sizes that the unified config fixes, by the names that tables use."""
    facts, config = layer(draft), draft.config
    values = {
        "hidden": facts["hidden_size"],
        "inner": facts["intermediate_size"],
        "heads": facts["num_attention_heads"],
        "kv_heads": facts["num_key_value_heads"],
        "head_dim": facts["head_dim"],
        "vocabulary": facts["vocab_size"],
        "draft_vocabulary": config.get("draft_vocab_size") or facts["vocab_size"],
        "target": config.get("target_hidden_size") or facts["hidden_size"],
        "aux": facts.get("num_aux_hidden_states") or 1,
    }
    return {name: Known(value, "config.json") for name, value in values.items()}


def cannot(reader: str, problems: Mapping[str, bool], *, hint: str = HINT) -> tuple[Finding, ...]:
    """A finding for each statement that holds: why ``reader`` would not compute this draft."""
    return tuple(
        found("export-not-representable", where="config.json", message=f"{reader}: {problem}", hint=hint)
        for problem, holds in problems.items()
        if holds
    )


def servers_limits(facts: Mapping[str, Any]) -> dict[str, bool]:
    """What vLLM and SGLang do not take: their Llama layers, and transformers' LlamaConfig that reads the config."""
    uneven = facts["hidden_size"] % facts["num_attention_heads"] != 0
    return {
        "its config class wants a hidden_size that is a multiple of the number of heads": (
            uneven and facts["model_type"] == "llama"
        ),
        f"its layers know no activation but silu, and the draft has {facts['hidden_act']}": (
            facts["hidden_act"] != "silu"
        ),
    }


def changed(where: str, message: str) -> Finding:
    return found("export-changed", where=where, message=message)


def leaving(table: TensorMap, *names: str) -> TensorMap:
    """The table without the rows of these names."""
    return TensorMap(*(row for row in table if row.text not in names))


def borrow(draft: UnifiedDraft, name: str) -> tuple[TensorMap, str]:
    """The row that puts the verifier's table into the draft's place ``name``, and what there is to say about it.

    The table is stored in the draft's dtype, since a file of two would be read as of another dtype than the draft.
    """
    there, stored = verifier_table(draft, name)
    via = COPY if stored == draft.dtype else Cast(draft.dtype, stored)
    how = "" if via is COPY else f", {via.name}"
    row = move(BORROWED[name], name, shape="vocabulary hidden", via=via)
    return TensorMap(row), f"is the verifier's {there}, which this layout stores{how}"


def verifier_table(draft: UnifiedDraft, name: str) -> tuple[str, str]:
    """The verifier's name and dtype of the draft's table ``name``. Raises Refused for codes of quantised numbers."""
    verifier = draft.verifier
    there = verifier.embedding_name if name == EMBEDDING else verifier.head_name
    dtype = verifier.checkpoint.tensors[there].dtype
    if dtype not in FLOATS:
        message = f"is stored as {dtype}, quantised: a draft of its own would hold the codes"
        hint = "give the verifier as it was before: --verifier BASE"
        raise Refused(
            [found("export-not-representable", where=f"{verifier.name}: {there}", message=message, hint=hint)]
        )
    return there, dtype


def is_the_verifiers(draft: UnifiedDraft, name: str) -> bool:
    """Whether the draft's table ``name`` is a copy of the verifier's, rounded to its own dtype and no further."""
    import numpy as np

    verifier = draft.verifier
    there = verifier.embedding_name if name == EMBEDDING else verifier.head_name
    ours, theirs = draft.checkpoint.tensors[name].dtype, verifier.checkpoint.tensors[there].dtype
    if draft.checkpoint.shape(name) != verifier.checkpoint.shape(there) or theirs not in FLOATS:
        return False
    table = verifier.checkpoint.read(there)
    if ours != theirs:
        try:
            (table,) = Cast(ours, theirs).run([table], ())
        except ValueError:  # a number that the draft's dtype cannot hold, so no copy
            return False
    return bool(np.array_equal(draft.checkpoint.read(name), table))


def rope_of_verifier(draft: UnifiedDraft) -> tuple[float, dict[str, Any] | None, int]:
    """Base, scaling and head size of the verifier's rotary embedding."""
    facts = Facts(draft.verifier.text_config, draft.verifier.name)
    theta, scaling, _ = rope(facts, Request())
    heads = facts.require({"num_attention_heads": int})["num_attention_heads"]
    return theta, scaling, facts.get("head_dim") or draft.verifier.hidden_size // heads
