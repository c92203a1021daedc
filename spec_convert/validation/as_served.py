"""A unified directory as servers read it: what they would guess, or read otherwise than it is meant.

Converting such a directory reads it as it is meant, and completes it. A server reads what lies there. So a directory is
right exactly when converting it would change nothing, and whatever it would change is a finding here.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.containers.refusal import few
from spec_convert.findings import Finding
from spec_convert.operations import COPY, Cast, Membership, OffsetsFromAbsolute
from spec_convert.plan import Plan, make_plan, with_any_layer_ids
from spec_convert.rules import found
from spec_convert.validation.as_converted import findings_of_changes
from spec_convert.validation.config_as_served import HINT, LAYER, LAYERS, MODEL, TOP, config_findings, part_of
from spec_convert.validation.server_defaults import AUX_IDS, BLOCKS, FUSED

# What a conversion says because it repairs it. In a directory that is served as it lies nobody does: other rules, and
# worse ones, say so here.
REPAIRED = frozenset({
    "layer-count-differs", "head-dim-differs", "d2t-absolute", "t2d-rebuilt", "positions-extended",
    "aux-layer-ids-need-verifier",
})  # fmt: skip
# Facts that only a verifier or the user can tell, or that cannot be meant: rules of their own ask for them.
UNTOLD = {
    "aux-layer-ids-need-verifier": AUX_IDS,
    "aux-layer-ids": AUX_IDS,
    "norm-before-residual-unknown": "norm_before_residual",
}


MOST_TOKENS = 1000  # at a time: no draft is right so often
_EFFECT = {
    "eagle_config": "whose flags vLLM prefers to those of the unified config",
    "is_causal": "by which vLLM lets a token look at those after it, or keeps it from that",
    "dflash_config": "whose words vLLM prefers to those of the unified config",
    "is_neox_style": "by which vLLM turns other channels of a head together",
}
# Keys of a layer config that change what vLLM computes, by the value that does not. It takes the layer config for the
# draft's whole config, and reads more of it than a unified one means.
OBEYED = {"eagle_config": None, "is_causal": True}
OBEYED_OF_BLOCKS = {"eagle_config": None, "is_causal": None, "dflash_config": None, "is_neox_style": True}
OBEYED_BY_TYPE = dict.fromkeys(("eagle", *FUSED), OBEYED) | dict.fromkeys(BLOCKS, OBEYED_OF_BLOCKS)


def unrepaired(findings: Iterable[Finding]) -> list[Finding]:
    """Those findings of a plan that are true of a directory that nobody converts."""
    return [finding for finding in findings if finding.rule not in REPAIRED]


def served_findings(plan: Plan) -> list[Finding]:
    """What a server would read otherwise than ``plan``, which reads the directory as it is meant."""
    checkpoint = plan.detection.checkpoint
    config = checkpoint.config or {}
    meant, untold = _meant(plan, config)
    return [
        *_misleading(config, meant),
        *_envelope(config),
        *(config_findings(plan, meant, untold) if meant is not None else ()),
        *_tensors(plan),
        *_weights_beside(checkpoint),
        *findings_of_changes(checkpoint),
    ]


def _meant(plan: Plan, config: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, set[str]]:
    """The config as it is meant, and the keys that nothing tells: those are stood in for, so as to know all others."""
    untold = {UNTOLD[finding.rule] for finding in plan.findings if finding.rule in UNTOLD}
    if plan.config is not None or not untold or config.get("speculators_model_type") not in FUSED:
        return plan.config, set()
    if AUX_IDS in untold:
        return with_any_layer_ids(plan, norm_before_residual=False).config, untold
    return make_plan(plan.detection, replace(plan.request, norm_before_residual=False)).config, untold


def _misleading(config: Mapping[str, Any], meant: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Keys that send a server another way. Keys that it merely does not read are harmless: dumps are full of them."""
    said, kind = config.get("model_type"), config.get("speculators_model_type")
    plain = meant.get("model_type") if meant else "eagle"  # what makes a stock vLLM serve a plain EAGLE-1 draft
    if said not in (None, "speculators") and not said == kind == plain:
        message = f"`model_type` is {reprlib.repr(said)}: vLLM does not read the directory as a unified one"
        if said == kind == "eagle":
            message = "`model_type` is 'eagle': a stock vLLM serves the draft without its fusion bias or layernorms"
        yield found("top-level-model-type", where=TOP, message=message, hint="take the key out")
    layer = part_of(config, LAYERS)
    for key, neutral in OBEYED_BY_TYPE.get(str(kind), {}).items():
        if layer.get(key) not in (None, neutral, {}):
            message = f"`{key}` is {reprlib.repr(layer[key])}, {_EFFECT[key]}"
            yield found("obeyed-by-servers", where=LAYER, message=message)
    parts = {LAYER: layer, MODEL: part_of(config, "model")} | ({TOP: config} if said == "eagle" else {})
    for where, part in parts.items():
        if part.get("bias") and layer.get("model_type") != "qwen3":  # whose model in vLLM does not read it
            message = "`bias` is set: vLLM builds attention with biases, which no tensor of the file fills"
            yield found("bias-read-by-attention", where=where, message=message, hint="take the key out")


def _envelope(config: Mapping[str, Any]) -> Iterator[Finding]:
    """What tells a server how to pair draft and verifier."""
    where = f"{TOP}: speculators_config"
    if not isinstance(envelope := config.get("speculators_config"), dict):
        message = "has no `speculators_config`: vLLM does not see that the directory is a unified one"
        yield found("left-to-servers", where=TOP, message=message, hint=HINT)
        return
    methods = envelope.get("proposal_methods")
    first = methods[0] if isinstance(methods, list) and methods else None
    tokens = first.get("speculative_tokens") if isinstance(first, dict) else None
    # What else it can be is judged where the config is checked as a whole.
    if tokens is None or isinstance(tokens, bool) or (isinstance(tokens, int) and tokens > MOST_TOKENS):
        message = "has no usable `speculative_tokens` in the first of its `proposal_methods`: vLLM refuses it"
        yield found("left-to-servers", where=where, message=message, hint=HINT)
    verifier = envelope.get("verifier")
    name = verifier.get("name_or_path") if isinstance(verifier, dict) else None
    if not (isinstance(name, str) and name):
        hint = "`spec-convert convert SOURCE OUTPUT --verifier BASE` writes it"
        yield found("verifier-unnamed", where=where, message="has no `name_or_path` of the verifier", hint=hint)


def _tensors(plan: Plan) -> Iterator[Finding]:
    """Tensors that converting would drop, rename, change or add: servers do not."""
    held = plan.detection.checkpoint.tensors
    if "d2t" in plan.dropped:
        message = "the draft knows the whole vocabulary, and vLLM has no place for a map"
        yield found("full-vocabulary-map", where="d2t", message=message, hint=HINT)
    elif unread := [held[name].name for name in plan.dropped]:
        yield found("unread-tensor", where=min(unread), message=f"servers leave out {few(unread)}")
    renamed: dict[str, str] = {}
    for step in plan.steps:
        names = [held[source].name for source in step.sources]
        (target, _), *_ = step.targets
        if step.via == COPY or isinstance(step.via, Cast):  # whole numbers may be stored in a narrower type
            renamed |= {name: target for name in names if name != target}
        elif isinstance(step.via, OffsetsFromAbsolute):
            message = "holds absolute ids: servers add the row number, and take the row of token i for another token"
            yield found("d2t-read-as-offsets", where=target, message=message, hint=HINT)
        elif isinstance(step.via, Membership):
            yield found("t2d-missing", where=target, message="is not in the file", hint=HINT)
        else:
            message = f"made of {', '.join(names)} ({step.via.name}), which servers do not do"
            yield found("tensor-read-otherwise", where=target, message=message, hint=HINT)
    yield from _misnamed(renamed)


def _misnamed(renamed: Mapping[str, str]) -> Iterator[Finding]:
    """One finding for all names that vLLM understands all the same, one for those that it does not."""
    spelt = {name for name, target in renamed.items() if name.replace("midlayer.", "layers.0.") == target}
    if spelt:
        yield found("vllm-spelling", where=min(spelt), message=f"holds {few(spelt)}", hint=HINT)
    if others := sorted(renamed.keys() - spelt):
        message = f"servers look for {few(f'{renamed[name]} (here {name})' for name in others)}"
        yield found("tensor-read-otherwise", where=others[0], message=message, hint=HINT)


def _weights_beside(checkpoint: Checkpoint) -> Iterator[Finding]:
    files = set(checkpoint.files.sizes())
    if "model.safetensors.index.json" in files:  # then vLLM takes the files that it names
        return
    beside = {name for name in files if name.endswith(".safetensors")} - set(checkpoint.weight_files)
    if beside:
        message = f"vLLM also loads {few(beside)}"
        yield found("weights-beside", where=min(beside), message=message, hint="move it out of this folder")
