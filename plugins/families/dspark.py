"""DSpark's heads on DFlash's layers: a bias from the token before, and how sure the draft is of each guess.

    logits of guess k = lm_head(norm(x'')) + markov_w2(markov_w1[the token before])

The guesses are taken one after the other; the layers have run once for all of them. Gated and recurrent heads also read
the row itself: vLLM 0.32 computes the plain one alone (`qwen3_dspark.py`).
"""

from __future__ import annotations

from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Layout
from spec_convert.plugins.families import dflash
from spec_convert.plugins.families.promises import broken_promises
from spec_convert.rules import found
from spec_convert.shapes import Known
from spec_convert.tensor_map import TensorMap, either, keep, move, refuse

RANK, HEAD, WITH_MARKOV = "markov_rank", "markov_head_type", "confidence_head_with_markov"
NO_PLACE = "servers compute the vanilla Markov head alone, which does not read the row that it biases"

PREFIXES = ("markov_head.", "logit_head.markov_head.", "")

# fmt: off
MARKOV = TensorMap(
    keep("markov_w1.weight", shape="vocabulary rank"),
    keep("markov_w2.weight", shape="draft_vocabulary rank"),
)
CONFIDENCE = TensorMap(
    keep("proj.weight", shape="1 confidence"),
    keep("proj.bias",   shape="1"),
)
GATES = TensorMap(*(
    refuse(f"{prefix}{gate}.{part}", because=NO_PLACE)
    for prefix in PREFIXES
    for gate in ("gate_proj", "joint_proj")
    for part in ("weight", "bias")
))
# Early SpecForge files keep both heads in a `logit_head`; ModelOpt has them at the root.
HEADS = GATES + either(*(MARKOV.under(prefix, "markov_head.") for prefix in PREFIXES))
CONFIDENCE_HEAD = either(
    CONFIDENCE.under("confidence_head."),
    CONFIDENCE.under("logit_head.confidence_head.", "confidence_head."),
    TensorMap(
        move("confidence_proj.weight", "confidence_head.proj.weight", shape="1 confidence"),
        move("confidence_proj.bias",   "confidence_head.proj.bias",   shape="1"),
    ),
)
# fmt: on

TABLES = {**dflash.TABLES, "heads": HEADS, "confidence head": CONFIDENCE_HEAD}


def has_markov_head(checkpoint: Checkpoint) -> bool:
    return any(f"{prefix}markov_w1.weight" in checkpoint for prefix in PREFIXES)


def features(checkpoint: Checkpoint) -> dict[str, Any]:
    return dflash.features(checkpoint) | {"confidence_head": _has_confidence_head(checkpoint)}


def layout(checkpoint: Checkpoint, layer: Facts, config: Facts) -> Layout:
    """See `dflash.layout`."""
    _refuse_other_heads(config)
    held = _has_confidence_head(checkpoint)
    confidence = [CONFIDENCE_HEAD] if held else []
    normal = dflash.layout(checkpoint, layer, config, HEADS, *confidence)
    rank = Known(config.require({RANK: int})[RANK], config.where)
    promises = broken_promises(config, dict.fromkeys(("enable_confidence_head", "use_confidence_head"), held))
    return Layout(table=normal.table, sizes={**normal.sizes, "rank": rank}, findings=(*normal.findings, *promises))


def describe(draft: Draft, reading: dflash.Reading) -> Described:
    """The unified `dspark` config."""
    with_markov, findings = _reads_the_token_before(draft, reading.config)
    own = {
        "markov_rank": draft.mapped.size("rank"),
        "markov_head_type": "vanilla",
        "enable_confidence_head": with_markov is not None,
        WITH_MARKOV: bool(with_markov),
    }
    described = dflash.describe(draft, reading, kind="dspark", own=own)
    return Described(config=described.config, findings=(*described.findings, *findings))


def _has_confidence_head(checkpoint: Checkpoint) -> bool:
    return any(name.endswith(("confidence_head.proj.weight", "confidence_proj.weight")) for name in checkpoint)


def _refuse_other_heads(config: Facts) -> None:
    head = config.get(HEAD)
    if head is not None and str(head).lower() != "vanilla":
        raise Refused([found("not-representable", where=config.where, message=f"`{HEAD}` is {head!r}: {NO_PLACE}")])


def _reads_the_token_before(draft: Draft, config: Facts) -> tuple[bool | None, list[Finding]]:
    """Whether the confidence head reads the token's embedding too, by its width; None when there is no such head."""
    name = "confidence_head.proj.weight"
    if name not in draft.mapped.targets:
        return None, []
    width, hidden, rank = (draft.mapped.size(one) for one in ("confidence", "hidden", "rank"))
    if width not in (hidden, hidden + rank):
        message = f"reads {width} numbers: neither a row of {hidden} nor that beside the {rank} of a token"
        return None, [found("wrong-shape", where=name, message=message)]
    with_markov = width != hidden
    if config.get(WITH_MARKOV) not in (None, with_markov):
        message = f"says `{WITH_MARKOV}` is {config.get(WITH_MARKOV)!r}, and the head reads {width} numbers"
        return with_markov, [found("config-contradicts-tensors", where=config.where, message=message)]
    return with_markov, []
