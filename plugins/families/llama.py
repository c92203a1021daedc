"""What every Llama-like draft layer shares: the rows of its tensors, its sizes and its part of the unified config."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Draft
from spec_convert.plugins.families.neutral import not_neutral
from spec_convert.plugins.families.rope import rope
from spec_convert.rules import found
from spec_convert.shapes import Known
from spec_convert.tensor_map import TensorMap, drop, keep

NOT_UNIFIED = "no `speculators_model_type` in config.json"

# fmt: off
MLP = TensorMap(
    keep("mlp.{p:gate_proj|up_proj}.weight", shape="inner hidden"),
    keep("mlp.down_proj.weight",             shape="hidden inner"),
)
ROTARY = TensorMap(
    drop("rotary_emb.inv_freq", because="recomputed from rope_theta"),
)
OUTPUT = ROTARY.under("self_attn.") + TensorMap(
    keep("self_attn.o_proj.weight",          shape="hidden heads*head_dim"),
)
QKV_BIAS = TensorMap(
    keep("self_attn.q_proj.bias",            shape="heads*head_dim"),
    keep("self_attn.{p:k_proj|v_proj}.bias", shape="kv_heads*head_dim"),
)
ATTENTION_BIAS = QKV_BIAS + TensorMap(
    keep("self_attn.o_proj.bias",            shape="hidden"),
)
QK_NORM = TensorMap(
    keep("self_attn.{n:q_norm|k_norm}.weight", shape="head_dim"),
)
# fmt: on


def is_unified(checkpoint: Checkpoint) -> bool:
    """Whether the config is a unified one: every other format must let go of such a checkpoint."""
    return checkpoint.get("speculators_model_type") is not None


def attention(width: str) -> TensorMap:
    """Projections that read ``width`` columns: ``hidden``, or ``2*hidden`` in EAGLE-3's first layer."""
    return TensorMap(
        keep("self_attn.q_proj.weight", shape=f"heads*head_dim {width}"),
        keep("self_attn.{p:k_proj|v_proj}.weight", shape=f"kv_heads*head_dim {width}"),
        OUTPUT,
    )


def norms(*names: str) -> TensorMap:
    return TensorMap(keep(f"{{n:{'|'.join(names)}}}.weight", shape="hidden"))


LATER_LAYER = attention("hidden") + MLP + norms("input_layernorm", "post_attention_layernorm")


def sizes(facts: Facts) -> dict[str, Known]:
    """The sizes that a Llama config fixes. Without num_key_value_heads every head has its own keys and values."""
    wanted = {"hidden_size": int, "intermediate_size": int, "num_attention_heads": int, "vocab_size": int}
    named = facts.require(wanted)
    kv_heads = "num_key_value_heads" if facts.has("num_key_value_heads") else "num_attention_heads"
    values = {
        "hidden": named["hidden_size"],
        "inner": named["intermediate_size"],
        "heads": named["num_attention_heads"],
        "kv_heads": facts.require({kv_heads: int})[kv_heads],
        "vocabulary": named["vocab_size"],
    }
    return {name: Known(value, facts.where) for name, value in values.items()}


def layers_in_file(draft: Draft) -> int:
    """How many decoder layers the file really holds; config.json is known to lie about it."""
    return len({name.split(".")[1] for name in draft.mapped.targets if name.startswith("layers.")})


def uneven_layers(draft: Draft, part: str) -> list[Finding]:
    """A finding for each layer that lacks ``part`` although another one has it: servers build all layers alike."""
    names = {number: f"layers.{number}.{part}" for number in range(layers_in_file(draft))}
    missing = [name for name in names.values() if name not in draft.mapped.targets]
    if len(missing) == len(names):
        return []
    return [found("missing-tensor", where=name, message="other layers have it, this one does not") for name in missing]


def layer_config(
    draft: Draft, facts: Facts, *, model_type: str = "llama", understood: Collection[str] = ()
) -> tuple[dict[str, Any], list[Finding]]:
    """The `transformer_layer_config` that all Llama-like drafts share, and what there is to say about it.

    ``understood``: keys beyond it that the caller carries over.
    """
    theta, scaling, findings = rope(facts, draft.request)
    parts = {part.where: part for part in (Facts.of(draft.checkpoint), facts)}.values()
    findings += not_neutral(*parts, understood=understood)
    named = facts.require({"hidden_act": str, "rms_norm_eps": float})
    if (activation := named["hidden_act"]) != "silu":
        message = f"`hidden_act` is {activation!r}, and the layers of vLLM and SGLang have none but silu"
        findings.append(found("not-representable", where=facts.where, message=message))
    positions, about_positions = _positions(draft, facts, scaling)
    findings += about_positions
    size = draft.mapped.size
    layers = layers_in_file(draft)
    if facts.has("num_hidden_layers") and facts.get("num_hidden_layers") != layers:
        message = f"says num_hidden_layers {facts.get('num_hidden_layers')}, the file holds {layers}: the file counts"
        findings.append(found("layer-count-differs", where=facts.where, message=message))
    if facts.has("head_dim") and facts.get("head_dim") != size("head_dim"):
        message = f"says head_dim {facts.get('head_dim')}, the tensors have {size('head_dim')}: the tensors count"
        findings.append(found("head-dim-differs", where=facts.where, message=message))
    config = {
        "model_type": model_type,
        "hidden_size": size("hidden"),
        "intermediate_size": size("inner"),
        "num_hidden_layers": layers,
        "num_attention_heads": size("heads"),
        "num_key_value_heads": size("kv_heads"),
        "head_dim": size("head_dim"),
        "vocab_size": size("vocabulary"),
        "hidden_act": named["hidden_act"],
        "rms_norm_eps": named["rms_norm_eps"],
        "max_position_embeddings": positions,
        "rope_theta": theta,
        "rope_scaling": scaling,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
    }
    return config, findings


def _positions(draft: Draft, facts: Facts, scaling: Mapping[str, Any] | None) -> tuple[int, list[Finding]]:
    """How many positions the config states: as many as the verifier's, since vLLM stops drafting at this number.

    The rotation of a position does not depend on it, except under dynamic scaling.
    """
    own: int = facts.first(["max_position_embeddings", "max_sequence_length"], int)
    verifier = draft.request.verifier
    theirs = verifier.text_config.get("max_position_embeddings") if verifier else None
    if not isinstance(theirs, int) or theirs <= own:
        return own, []
    message = f"the draft was made for {own} positions, the verifier for {theirs}"
    if isinstance(scaling, Mapping) and "dynamic" in (scaling.get("rope_type"), scaling.get("type")):
        return own, [found("positions-end-early", where=facts.where, message=message)]
    return theirs, [found("positions-extended", where=facts.where, message=f"{message}: {theirs} is written")]
