"""DFlash in the reading that servers compute: rows, config and checks that its dialects share, and DSpark with them.

    context = hidden_norm(fc(cat(verifier states)))
    x = embedding(newest token, mask token, mask token, …), a row for each token of the block
    x' = x + attention(from input_layernorm(x), to context and input_layernorm(x));  x'' = x' + mlp(…), layer by layer
    logits = lm_head(norm(x'')) of every masked row: one guess for its own place, all in one pass

The context is never a row: each layer makes keys and values of it, at the places of the tokens that the verifier has
read. Sources: z-lab/dflash (arXiv 2602.06036) and what vLLM 0.32 computes in `qwen3_dflash.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.envelope import envelope
from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Layout
from spec_convert.plugins.families import block_windows, llama
from spec_convert.plugins.families.aux_layers import known_ids
from spec_convert.plugins.families.block_windows import Windows
from spec_convert.plugins.families.eagle3 import draft_vocabulary, not_to_be_borrowed
from spec_convert.plugins.families.promises import broken_promises, layer_biases
from spec_convert.plugins.families.vocabulary import TABLES as VOCABULARY_TABLES
from spec_convert.plugins.families.vocabulary import read_vocabulary
from spec_convert.rules import found
from spec_convert.shapes import Known
from spec_convert.tensor_map import TensorMap, either, keep, move, refuse

FLAGS = frozenset({"aux_layer_ids", "rope_theta"})
ARCHITECTURES = {"dflash": "DFlashSpeculator", "dspark": "DSparkSpeculator"}
NESTED = "dflash_config"
IDS, UNIFIED_IDS = "target_layer_ids", "aux_hidden_state_layer_ids"

# fmt: off
LAYER = TensorMap(
    llama.attention("hidden"), llama.QK_NORM, llama.MLP, llama.norms("input_layernorm", "post_attention_layernorm"),
)
FUSION = TensorMap(
    keep("fc.weight",          shape="hidden aux*target"),
    keep("hidden_norm.weight", shape="hidden"),
    keep("norm.weight",        shape="hidden"),
)
TORCHSPEC_FUSION = TensorMap(
    move("context_proj.weight", "fc.weight",          shape="hidden aux*target"),
    move("context_norm.weight", "hidden_norm.weight", shape="hidden"),
    move("final_norm.weight",   "norm.weight",        shape="hidden"),
)
BODY = TensorMap(
    either(FUSION, TORCHSPEC_FUSION),
    keep("embed_tokens.weight", shape="vocabulary hidden", optional=True),
    refuse("fc.bias", because="servers have no such bias, and the norm behind it keeps it from being folded"),
    LAYER.under("layers.{i:int}."),
    llama.ROTARY,
)
BIASES = llama.ATTENTION_BIAS.under("layers.{i:int}.")
# fmt: on

TABLES = {"body": BODY, "biases of the attention": BIASES, **VOCABULARY_TABLES}

# Marks of drafts that are built on DFlash and are other functions: DSpark, Domino, DFlare, DFlash2.
DESCENDANTS = (
    "markov_head.", "markov_w1.", "prefix_gru.", "embed_proj.", "k_proj_target", "v_proj_target",
    "layer_fusion_weights", "candidate_selector.", "attention_conv.", "mlp_conv.",
)  # fmt: skip
DESCENDANT_KEYS = ("selector_rank", "conv_kernel_size", "markov_rank")
# What vLLM's own reading of the layout knows beyond the unified config, by the value that changes nothing.
UNSAID = {
    "attention_sink_bias": False, "add_swa_attention_sink_bias": False, "attention_value_scale": 1,
    "use_aux_hidden_state": True, "is_neox_style": True,
}  # fmt: skip


def is_descendant(checkpoint: Checkpoint) -> bool:
    """Whether the draft is built on DFlash and is another function."""
    config = _words(checkpoint)
    return (
        any(f".{mark}" in f".{name}" for name in checkpoint for mark in DESCENDANTS)
        or any(config.get(key) is not None for key in DESCENDANT_KEYS)
        or config.get("projector_type") not in (None, "dflash")
    )


def _words(checkpoint: Checkpoint) -> dict[str, Any]:
    """All that config.json says, in `dflash_config` or not, without looking for contradictions."""
    nested = checkpoint.get(NESTED)
    return {**(checkpoint.config or {}), **(nested if isinstance(nested, dict) else {})}


def looks_like_a_block_draft(checkpoint: Checkpoint) -> dict[str, bool]:
    """The statements that every checkpoint of the family must make true."""
    fusion = either_of(checkpoint, "fc.weight", "context_proj.weight")
    norm = either_of(checkpoint, "hidden_norm.weight", "context_norm.weight")
    query = checkpoint.shape("layers.0.self_attn.q_proj.weight")
    return {
        "a fusion of verifier states (`fc` or `context_proj`)": fusion is not None and len(fusion) == 2,
        "a norm behind it (`hidden_norm` or `context_norm`)": norm is not None and len(norm) == 1,
        "a first layer that reads rows of the draft's own width": (
            query is not None and norm is not None and len(query) == 2 and query[1] == norm[0]
        ),
        llama.NOT_UNIFIED: not llama.is_unified(checkpoint),
    }


def either_of(checkpoint: Checkpoint, *names: str) -> tuple[int, ...] | None:
    """The shape of the first of these tensors that is there."""
    return next((shape for name in names if (shape := checkpoint.shape(name)) is not None), None)


def features(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `detect` shows of a draft of the family, from its tensors first."""
    norm, head = either_of(checkpoint, "hidden_norm.weight", "context_norm.weight"), checkpoint.shape("lm_head.weight")
    config = _words(checkpoint)
    return {
        "fusion_bias": "fc.bias" in checkpoint,
        "layernorms": False,
        "hidden_size": norm[0] if norm else None,
        "target_hidden_size": config.get("target_hidden_size"),
        "vocab_size": config.get("vocab_size"),
        "draft_vocab_size": head[0] if head else config.get("draft_vocab_size"),
        "layers": len({name.split(".")[1] for name in checkpoint if name.startswith("layers.")}),
        "block_size": config.get("block_size"),
        "own_embeddings": "embed_tokens.weight" in checkpoint,
    }


def published(checkpoint: Checkpoint) -> Facts:
    """config.json with what stands in `dflash_config`. Raises Refused when the two say different things."""
    config = Facts.of(checkpoint)
    nested = config.part(NESTED).values if config.has(NESTED) else {}
    said = {key: value for key, value in nested.items() if value is not None}
    if twice := sorted(key for key in said if config.has(key) and config.get(key) != said[key]):
        message = f"says {', '.join(f'`{key}`' for key in twice)} otherwise than its `{NESTED}` does"
        raise Refused([found("config-contradicts-itself", where=config.where, message=message)])
    return Facts({**config.values, **said}, config.where)


def layout(checkpoint: Checkpoint, layer: Facts, config: Facts, *extra: TensorMap) -> Layout:
    """The rows of this checkpoint. ``layer``: where the layer's facts stand; ``config``: where the draft's own do."""
    sizes = llama.sizes(layer)
    key = "target_hidden_size"
    sizes["target"] = Known(config.require({key: int})[key], config.where) if config.has(key) else sizes["hidden"]
    drafts = draft_vocabulary(checkpoint, config, sizes["vocabulary"].value)
    sizes["draft_vocabulary"] = drafts
    vocabulary = read_vocabulary(checkpoint, sizes["vocabulary"].value, drafts.value)
    biased = [BIASES] if any(name.endswith("_proj.bias") and ".self_attn." in name for name in checkpoint) else []
    findings = (*vocabulary.findings, *broken_promises(layer, layer_biases(checkpoint)))
    return Layout(table=TensorMap(BODY, *biased, *extra, vocabulary.rows), sizes=sizes, findings=findings)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A draft's config in unified words. ``ids`` are None while a finding says which fact is missing."""

    layer: Facts
    config: Facts
    windows: Windows
    ids: list[int] | None
    sample_from_anchor: bool
    findings: tuple[Finding, ...] = ()


def as_published(draft: Draft, config: Facts, *, sample_from_anchor: bool, verifier_layers: str) -> Reading:
    """Of the layout of z-lab. ``verifier_layers``: the key that says how many layers the verifier has."""
    ids, findings = _output_ids(draft, config, verifier_layers)
    findings += [
        found(
            "not-representable", where=config.where,
            message=f"`{key}` is {config.get(key)!r}, which unified configs cannot say",
        )
        for key, neutral in UNSAID.items()
        if config.has(key) and config.get(key) != neutral
    ]  # fmt: skip
    windows = block_windows.as_published(config, llama.layers_in_file(draft))
    return Reading(
        layer=config, config=config, windows=windows, ids=ids, sample_from_anchor=sample_from_anchor,
        findings=tuple(findings),
    )  # fmt: skip


def as_unified(draft: Draft, layer: Facts, config: Facts, *, sample_from_anchor: bool) -> Reading:
    """Of a unified directory."""
    flag = draft.request.aux_layer_ids
    given = list(flag) if flag is not None else _whole_numbers(config, UNIFIED_IDS)
    ids, findings = known_ids(draft, given, given, config.where if flag is None else "--aux-layer-ids")
    windows = block_windows.as_unified(layer, config, llama.layers_in_file(draft))
    return Reading(
        layer=layer, config=config, windows=windows, ids=ids, sample_from_anchor=sample_from_anchor,
        findings=tuple(findings),
    )  # fmt: skip


def describe(
    draft: Draft, reading: Reading, *, kind: str = "dflash", own: Mapping[str, Any] | None = None
) -> Described:
    """The unified config, of type ``kind``, of a draft whose tensors are all in place; with ``own`` fields of it."""
    size, config = draft.mapped.size, reading.config
    layer, findings = llama.layer_config(draft, reading.layer, model_type="qwen3", understood=block_windows.UNDERSTOOD)
    layer |= {"attention_bias": "layers.0.self_attn.o_proj.bias" in draft.mapped.targets, **reading.windows.layer}
    block = _block_size(draft, reading)
    base, more = envelope(
        draft, config, model_type=kind, architecture=ARCHITECTURES[kind], width=size("target"),
        proposed=max(block - (not reading.sample_from_anchor), 1),
    )  # fmt: skip
    findings += [*more, *reading.findings, *block_windows.mistaken(reading.windows, kind)]
    findings += not_to_be_borrowed(draft, reading.layer, config)
    if reading.ids is None:
        return Described(config=None, findings=tuple(findings))
    fields = {
        "draft_vocab_size": size("draft_vocabulary"),
        "block_size": block,
        "target_hidden_size": size("target") if size("target") != size("hidden") else None,
        UNIFIED_IDS: reading.ids,
        "mask_token_id": config.require({"mask_token_id": int})["mask_token_id"],
        block_windows.NON_CAUSAL: reading.windows.non_causal,
        "sample_from_anchor": reading.sample_from_anchor,
        "transformer_layer_config": layer,
    }
    return Described(config={**base, **fields, **(own or {})}, findings=tuple(findings))


def _block_size(draft: Draft, reading: Reading) -> int:
    """How many rows a block has: config.json, or as many as the tokens that the user asks for need."""
    asked = draft.request.speculative_tokens
    if not reading.config.has("block_size") and asked is not None:
        return asked + (not reading.sample_from_anchor)
    if reading.config.has("block_size"):
        return int(reading.config.require({"block_size": int})["block_size"])
    raise Refused([
        found("config-key-missing", where=reading.config.where,
              message="has no `block_size`, the length of the blocks that it was trained on",
              hint="`--speculative-tokens K` tells it: a block is the newest token and K guesses"),
    ])  # fmt: skip


def _output_ids(draft: Draft, config: Facts, verifier_layers: str) -> tuple[list[int] | None, list[Finding]]:
    """Boundary ids of a config that names layers by their outputs, or leaves them to the authors' rule."""
    flag, verifier = draft.request.aux_layer_ids, draft.request.verifier
    if flag is not None:
        return known_ids(draft, list(flag), list(flag), "--aux-layer-ids")
    if config.has(IDS):
        given, origin = _whole_numbers(config, IDS), config.where
    elif config.has(verifier_layers) or verifier is not None:
        said = config.require({verifier_layers: int})[verifier_layers] if config.has(verifier_layers) else None
        given = spread(said or (verifier.num_hidden_layers if verifier else 0), draft.mapped.size("aux"))
        origin = "the authors' default"
    else:
        message = "has no layer ids: their default depends on how many layers the verifier has"
        return None, [found("aux-layer-ids-need-verifier", where=config.where, message=message)]
    return known_ids(draft, [number + 1 for number in given], given, origin)


def spread(layers: int, count: int) -> list[int]:
    """The layers whose outputs z-lab's code takes when nothing is said: from the second to the fourth from the end."""
    if count == 1:
        return [layers // 2]
    return [round(1 + number * (layers - 4) / (count - 1)) for number in range(count)]


def _whole_numbers(config: Facts, key: str) -> list[int]:
    ids: Iterable[Any] = config.require({key: list})[key]
    if not ids or not all(isinstance(number, int) and not isinstance(number, bool) for number in ids):
        message = f"`{key}` is {ids!r}, no list of layers"
        raise Refused([found("config-key-invalid", where=config.where, message=message)])
    return list(ids)
