"""Directories that are already unified: read back with the same checks, and completed where facts are missing.

Older speculators releases left out what servers guess wrongly: the layer ids, `num_aux_hidden_states`, the layer's
`model_type`, `t2d`. What the file or the verifier tells is filled in; `norm_before_residual`, which vLLM takes for true
and the library for false when it is absent, must be given by flag. In DFlash and DSpark directories `false` for
`sliding_window_non_causal`, which the library writes of drafts without any window, makes vLLM compute every layer
causally: it is written as it is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused, UsageError
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Export, Format, Layout, Native, Request, UnifiedDraft
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins import eagle_layernorms, eagle_mlp
from spec_convert.plugins.families import dflash, dspark, eagle1, eagle3, examples, llama, mtp, peagle
from spec_convert.plugins.families.aux_layers import KEY
from spec_convert.plugins.families.promises import broken_promises, layer_biases
from spec_convert.rules import found
from spec_convert.tensor_map import TensorMap, keep

LAYER, ANCHOR = "transformer_layer_config", "sample_from_anchor"
MTP_TABLES = {False: mtp.unified(llama.MLP), True: mtp.unified(mtp.ROUTER + mtp.STACKED_EXPERTS)}  # with experts?
# fmt: off
EAGLE_NORMS = {
    "before_fusion": eagle1.LAYERNORMS,
    "after_fusion": TensorMap(
        keep("embed_layernorm.weight",          shape="hidden"),
        keep("layers.0.input_layernorm.weight", shape="hidden"),
        keep("lm_head_layernorm.weight",        shape="hidden"),
    ),
}
# fmt: on


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required={
            f"a `speculators_model_type` that is one of {', '.join(TYPES)}": known_type(checkpoint),
            "not the old library's names (`fusion_fc`)": "fusion_fc.weight" not in checkpoint,
        },
        supporting={"`speculators_config` in config.json": isinstance(checkpoint.get("speculators_config"), dict)},
    )


def known_type(checkpoint: Checkpoint) -> bool:
    return checkpoint.get("speculators_model_type") in list(TYPES)  # a list: a damaged config may hold anything


def unified_type(checkpoint: Checkpoint) -> str:
    kind = checkpoint.get("speculators_model_type")
    if not known_type(checkpoint):
        message = f"unified drafts of type {kind!r} are not known here"
        hint = f"known are {', '.join(TYPES)}"
        raise Refused([found("unknown-unified-type", where="config.json", message=message, hint=hint)])
    return str(kind)


def features(checkpoint: Checkpoint) -> Mapping[str, Any]:
    kind = checkpoint.get("speculators_model_type")
    own = TYPES[str(kind)].features(checkpoint) if known_type(checkpoint) else {}
    return {"speculators_model_type": kind, **own}


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    kind = unified_type(checkpoint)
    parts = TYPES[kind].layout(checkpoint, Facts.of(checkpoint), request)
    return replace(parts, findings=(*_unfitting_flags(kind, request), *parts.findings))


def describe(draft: Draft) -> Described:
    return TYPES[unified_type(draft.checkpoint)].describe(draft, Facts.of(draft.checkpoint))


def _unfitting_flags(kind: str, request: Request) -> list[Finding]:
    """Flags that this format heeds in directories of another type."""
    unfitting = sorted(request.flags.keys() & FORMAT.flags - TYPES[kind].flags)
    message = f"means nothing for unified drafts of type `{kind}`"
    return [found("flag-not-heeded", where=f"--{flag.replace('_', '-')}", message=message) for flag in unfitting]


def _eagle3_layout(checkpoint: Checkpoint, config: Facts, request: Request) -> Layout:
    layer = config.part(LAYER)
    normal = eagle3.layout(checkpoint, layer, config, *eagle3.norms_before_fc(checkpoint))
    return _with_promises(normal, checkpoint, layer)


def _peagle_layout(checkpoint: Checkpoint, config: Facts, request: Request) -> Layout:
    layer = config.part(LAYER)
    return _with_promises(peagle.layout(checkpoint, layer, config), checkpoint, layer)


def _dflash_layout(checkpoint: Checkpoint, config: Facts, request: Request) -> Layout:
    if config.get(ANCHOR) is True:
        message = f"`{ANCHOR}` is true: the row of the newest token guesses too, which servers do not do of DFlash"
        raise Refused([found("not-representable", where=config.where, message=message)])
    return dflash.layout(checkpoint, config.part(LAYER), config)


def _with_promises(normal: Layout, checkpoint: Checkpoint, layer: Facts) -> Layout:
    promises = broken_promises(layer, layer_biases(checkpoint)) + _qk_norms(checkpoint, layer)
    return replace(normal, findings=(*normal.findings, *promises))


def _qk_norms(checkpoint: Checkpoint, layer: Facts) -> list[Finding]:
    """Servers build layers of type qwen3 with norms on queries and keys, and leave them at one when there are none."""
    if layer.get("model_type") != "qwen3" or eagle3.has_qk_norm(checkpoint):
        return []
    message = "says `model_type` is qwen3, and the file holds no norms of queries and keys"
    return [found("missing-tensor", where=layer.where, message=message)]


def _mtp_features(checkpoint: Checkpoint) -> dict[str, Any]:
    fusion = checkpoint.shape(f"{mtp.UNIFIED}input_proj.weight")
    return {"hidden_size": fusion[0] if fusion else None, "layers": 1}


def _mtp_layout(checkpoint: Checkpoint, config: Facts, request: Request) -> Layout:
    layer = _mtp_facts(config, request)
    experts = mtp.has_experts(layer)
    return Layout(table=MTP_TABLES[experts], sizes=mtp.sizes(layer))


def _mtp_facts(config: Facts, request: Request) -> Facts:
    """The layer's config is the target's own, so what the library leaves out as its default, the target tells."""
    layer, verifier = config.part(LAYER), request.verifier
    theirs = verifier.text_config if verifier else {}
    same = layer.get("model_type") == theirs.get("model_type")
    return replace(layer, values={**theirs, **layer.values}) if same else layer


def _eagle_layout(checkpoint: Checkpoint, config: Facts, request: Request) -> Layout:
    layer = config.part(LAYER)
    bias, findings = eagle1.fusion_bias_rows(checkpoint, request, eagle1.BIAS_TENSOR)
    findings += eagle1.promised_biases(checkpoint, config, layer)
    norms, about_norms = _eagle_norms(config, request)
    rows = TensorMap(eagle1.BODY, norms, bias, eagle1.qkv_bias_rows(checkpoint))
    return Layout(table=rows, sizes=llama.sizes(layer), findings=(*findings, *about_norms))


def _eagle_norms(config: Facts, request: Request) -> tuple[TensorMap, list[Finding]]:
    position = config.get("layernorm_position")
    if position is None and config.get("layernorms") is True:
        config.require({"layernorm_position": str})
    if position is None:
        findings = [eagle1.no_layernorms_to_keep()] if request.layernorms else []
        return eagle1.NO_EXTRA_NORMS, findings
    if position not in list(EAGLE_NORMS):
        message = f"`layernorm_position` is {position!r}, not {' or '.join(EAGLE_NORMS)}"
        raise Refused([found("config-key-invalid", where=config.where, message=message)])
    norms, findings = eagle1.layernorm_rows(EAGLE_NORMS[position], request)
    return norms + eagle1.NO_EXTRA_NORMS if position == "before_fusion" else norms, findings


def _describe_eagle(draft: Draft, config: Facts) -> Described:
    kept = "lm_head_layernorm.weight" in draft.mapped.targets
    return eagle1.describe(draft, config.part(LAYER), position=config.get("layernorm_position") if kept else None)


def _describe_dflash(draft: Draft, config: Facts) -> Described:
    return dflash.describe(draft, dflash.as_unified(draft, config.part(LAYER), config, sample_from_anchor=False))


def _describe_dspark(draft: Draft, config: Facts) -> Described:
    anchored = config.require({ANCHOR: bool})[ANCHOR]  # which vLLM takes for false and the library for true
    return dspark.describe(draft, dflash.as_unified(draft, config.part(LAYER), config, sample_from_anchor=anchored))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How directories of one unified type are read back. ``tables`` are those that it adds to the types before it."""

    tables: Mapping[str, TensorMap]
    flags: frozenset[str]
    features: Callable[[Checkpoint], Mapping[str, Any]]
    layout: Callable[[Checkpoint, Facts, Request], Layout]
    describe: Callable[[Draft, Facts], Described]


TYPES = {
    "eagle3": Reading(
        tables={f"eagle3: {name}": table for name, table in (eagle3.TABLES | eagle3.EXTRA_NORMS).items()},
        flags=eagle3.FLAGS,
        features=eagle3.features,
        layout=_eagle3_layout,
        describe=lambda draft, config: eagle3.describe_as_said(draft, config.part(LAYER), config),
    ),
    "eagle": Reading(
        tables={
            **{f"eagle: {name}": table for name, table in eagle_layernorms.FORMAT.tables.items()},
            "eagle: layernorms after the fusion": EAGLE_NORMS["after_fusion"],
            "eagle: layernorms after the fusion with --no-layernorms": eagle1.without(EAGLE_NORMS["after_fusion"]),
        },
        flags=eagle1.FLAGS,
        features=eagle1.features,
        layout=_eagle_layout,
        describe=_describe_eagle,
    ),
    "eagle_mlp": Reading(
        tables={"eagle_mlp": eagle_mlp.TABLE},
        flags=eagle_mlp.FORMAT.flags,
        features=eagle_mlp.features,
        layout=lambda checkpoint, _, request: eagle_mlp.layout(checkpoint, request),
        describe=lambda draft, _: eagle_mlp.describe(draft),
    ),
    "peagle": Reading(
        tables={"peagle: besides those of eagle3": peagle.MASK},
        flags=eagle3.FLAGS,
        features=eagle3.features,
        layout=_peagle_layout,
        describe=lambda draft, config: peagle.describe(draft, config.part(LAYER), config),
    ),
    "dflash": Reading(
        tables={f"dflash: {name}": table for name, table in dflash.TABLES.items()},
        flags=dflash.FLAGS,
        features=dflash.features,
        layout=_dflash_layout,
        describe=_describe_dflash,
    ),
    "dspark": Reading(
        tables={"dspark: besides those of dflash": dspark.HEADS + dspark.CONFIDENCE_HEAD},
        flags=dflash.FLAGS,
        features=dspark.features,
        layout=lambda checkpoint, config, _: dspark.layout(checkpoint, config.part(LAYER), config),
        describe=_describe_dspark,
    ),
    "mtp": Reading(
        tables={"mtp": MTP_TABLES[False], "mtp: with experts": MTP_TABLES[True]},
        flags=frozenset(),
        features=_mtp_features,
        layout=_mtp_layout,
        describe=lambda draft, config: mtp.describe(draft, _mtp_facts(config, draft.request)),
    ),
}


def already_there(draft: UnifiedDraft) -> Native:
    """EAGLE-3 drafts have had one form in that library from its first release on. Raises UsageError, always."""
    source = draft.checkpoint.source
    raise UsageError(f"the speculators library reads {source} as it is", hint="there is nothing to export: copy it")


def example(sizes: Sizes) -> Example:
    """As the library's own trainer of EAGLE-3 saves it."""
    config = {
        "architectures": ["Eagle3DraftModel"],
        "draft_vocab_size": sizes.draft_vocabulary,
        "embed_requires_grad": False,
        "fc_norm": False,
        KEY: examples.boundary_ids(sizes),
        "norm_before_fc": False,
        "norm_before_residual": False,
        "norm_output": False,
        "speculators_config": examples.speculators_config("eagle3"),
        "speculators_model_type": "eagle3",
        "speculators_version": "0.9.0",
        "target_hidden_size": None,
        "tie_word_embeddings": False,
        "transformer_layer_config": examples.layer_config(sizes, num_aux_hidden_states=examples.STATES),
        "transformers_version": "5.13.0",
    }
    return examples.eagle3_example(sizes, config, first=examples.FIRST_LAYER_AS_LAYER_0)


FORMAT = Format(
    name="speculators",
    title="Unified directories (speculators format)",
    reference="https://github.com/vllm-project/speculators",
    produces="",
    tables={name: table for reading in TYPES.values() for name, table in reading.tables.items()},
    recognise=recognise,
    features=features,
    layout=layout,
    describe=describe,
    flags=frozenset().union(*(reading.flags for reading in TYPES.values())),
    is_unified=known_type,
    example=example,
    exports=(Export(target="speculators-0.6", of="eagle3", write=already_there),),
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
