"""MTP heads of Qwen3-Next and Qwen3.5: one layer of the target's own kind behind two norms and a projection.

    x = layer(input_proj([token_layernorm(embedding), hidden_layernorm(state)])),  logits = head(final_layernorm(x))

Its attention is gated and its norms multiply by 1 + weight, so no other draft's rows fit. The unified names are those
of the speculators library, which stacks all experts of a layer in two tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.envelope import envelope
from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft
from spec_convert.plugins.families import llama
from spec_convert.rules import found
from spec_convert.shapes import Known
from spec_convert.tensor_map import TensorMap, keep, move, stack

UNIFIED = "mtp_layers.0."
DENSE, OF_EXPERTS = ("qwen3_5_text",), ("qwen3_next", "qwen3_5_moe_text")
TIED = "tie_word_embeddings"
ALWAYS_NORMED = "qwen3_5_moe_text"  # whose code scales the weights of the chosen experts and asks nobody

# fmt: off
FUSION = TensorMap(
    move("fc.weight",                    "input_proj.weight",       shape="hidden 2*hidden"),
    move("pre_fc_norm_embedding.weight", "token_layernorm.weight",  shape="hidden"),
    move("pre_fc_norm_hidden.weight",    "hidden_layernorm.weight", shape="hidden"),
    move("norm.weight",                  "final_layernorm.weight",  shape="hidden"),
)
ATTENTION = TensorMap(
    keep("self_attn.q_proj.weight",             shape="2*heads*head_dim hidden"),  # of each head: query, then gate
    keep("self_attn.{p:k_proj|v_proj}.weight",  shape="kv_heads*head_dim hidden"),
    keep("self_attn.o_proj.weight",             shape="hidden heads*head_dim"),
    llama.QK_NORM,
    llama.norms("input_layernorm", "post_attention_layernorm"),
)
ROUTER = TensorMap(
    keep("mlp.gate.weight",                                      shape="experts hidden"),
    keep("mlp.shared_expert.{p:gate_proj|up_proj}.weight",       shape="shared hidden"),
    keep("mlp.shared_expert.down_proj.weight",                   shape="hidden shared"),
    keep("mlp.shared_expert_gate.weight",                        shape="1 hidden"),
)
STACKED_EXPERTS = TensorMap(
    keep("mlp.experts.gate_up_proj",                             shape="experts 2*expert hidden"),
    keep("mlp.experts.down_proj",                                shape="experts hidden expert"),
)
# fmt: on


def single_experts(count: int) -> TensorMap:
    """The experts one by one, as most checkpoints have them."""
    names = [f"mlp.experts.{expert}" for expert in range(count)]
    gates_and_ups = [(f"{name}.gate_proj.weight", f"{name}.up_proj.weight") for name in names]
    downs = [(f"{name}.down_proj.weight",) for name in names]
    return TensorMap(
        stack(gates_and_ups, into="mlp.experts.gate_up_proj", shape="expert hidden"),
        stack(downs, into="mlp.experts.down_proj", shape="hidden expert"),
    )


def native(feed_forward: TensorMap) -> TensorMap:
    """The rows of a target's MTP head, whose feed-forward network is as these rows say."""
    return FUSION.under("mtp.", UNIFIED) + (ATTENTION + feed_forward).under("mtp.layers.0.", UNIFIED)


def unified(feed_forward: TensorMap) -> TensorMap:
    own = TensorMap(*(keep(target.text, shape=" ".join(row.laws[0])) for row in FUSION for target in row.targets))
    return (own + ATTENTION + feed_forward).under(UNIFIED)


def text_facts(checkpoint: Checkpoint) -> Facts:
    """The facts of the language model, nested where the target also sees: all but one, which may stand outside."""
    facts = Facts.of(checkpoint)
    if not isinstance(facts.get("text_config"), dict):
        return facts
    nested = facts.part("text_config")
    outside = {TIED: facts.get(TIED)} if facts.has(TIED) and not nested.has(TIED) else {}
    return replace(nested, values={**nested.values, **outside})


def has_experts(facts: Facts) -> bool:
    """Raises Refused when the layers are of no kind that the speculators library builds MTP layers of."""
    kind = facts.require({"model_type": str})["model_type"]
    if kind not in DENSE + OF_EXPERTS:
        raise Refused([not_unified(facts.where, f"`model_type` is {kind}, and the library knows no MTP layer of it")])
    return kind in OF_EXPERTS


def not_unified(where: str, message: str) -> Finding:
    """A head that the unified type cannot hold: its target serves it all the same."""
    hint = 'serve the target with --speculative-config \'{"method": "mtp", "num_speculative_tokens": N}\''
    return found("not-representable", where=where, message=message, hint=hint)


def sizes(facts: Facts) -> dict[str, Known]:
    names = {
        "hidden": "hidden_size", "heads": "num_attention_heads", "kv_heads": "num_key_value_heads",
        "head_dim": "head_dim", "vocabulary": "vocab_size",
    }  # fmt: skip
    if has_experts(facts):
        names |= {
            "experts": "num_experts", "expert": "moe_intermediate_size", "shared": "shared_expert_intermediate_size",
        }  # fmt: skip
    else:
        names |= {"inner": "intermediate_size"}
    said = facts.require(dict.fromkeys(names.values(), int))
    return {size: Known(said[key], facts.where) for size, key in names.items()}


def describe(draft: Draft, facts: Facts) -> Described:
    """The unified `mtp` config: the part of the target's own that its MTP layer depends on."""
    base, findings = envelope(
        draft, Facts({}), model_type="mtp", architecture="MTPDraftModel", width=draft.mapped.size("hidden")
    )
    message = "vLLM takes such a head inside its target alone"
    findings.append(found("served-inside-its-target", where="config.json", message=message))
    layer, odd = _layer_config(facts)
    own = {"num_nextn_predict_layers": 1, "transformer_layer_config": layer}
    return Described(config=None if odd else base | own, findings=(*findings, *odd))


def _layer_config(facts: Facts) -> tuple[dict[str, Any], list[Finding]]:
    said = facts.require({
        "model_type": str, "hidden_size": int, "num_hidden_layers": int, "num_attention_heads": int,
        "num_key_value_heads": int, "head_dim": int, "vocab_size": int, "hidden_act": str, "rms_norm_eps": float,
        "max_position_embeddings": int, TIED: bool,
    })  # fmt: skip
    layer = said | {
        "layer_types": _layer_types(facts), "rope_parameters": _rope_parameters(facts), "attention_bias": False,
    }  # fmt: skip
    odd = []
    if facts.get("attention_bias"):
        odd.append(not_unified(facts.where, "`attention_bias` is true, and no file of this kind is known to hold such"))
    if not has_experts(facts):
        return layer | facts.require({"intermediate_size": int}), odd
    counts = ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size")
    layer |= facts.require(dict.fromkeys(counts, int)) | {"decoder_sparse_step": 1, "mlp_only_layers": []}
    layer["norm_topk_prob"] = (
        said["model_type"] == ALWAYS_NORMED or facts.require({"norm_topk_prob": bool})["norm_topk_prob"]
    )
    for key, usual in {"decoder_sparse_step": 1, "mlp_only_layers": []}.items():
        if facts.has(key) and facts.get(key) != usual:
            odd.append(
                not_unified(facts.where, f"`{key}` is {facts.get(key)!r}: servers and library disagree on the layer")
            )
    return layer, odd


def _layer_types(facts: Facts) -> list[Any]:
    """One word a layer; Qwen3-Next tells only at which distance full attention returns."""
    if facts.has("layer_types"):
        return list(facts.require({"layer_types": list})["layer_types"])
    every = facts.require({"full_attention_interval": int})["full_attention_interval"]
    count = facts.require({"num_hidden_layers": int})["num_hidden_layers"]
    return ["full_attention" if number % every == 0 else "linear_attention" for number in range(1, count + 1)]


def _rope_parameters(facts: Facts) -> Mapping[str, Any]:
    """As transformers 5 has them, from its own spelling or the older keys beside each other."""
    key = next((key for key in ("rope_parameters", "rope_scaling") if facts.get(key)), None)
    part = facts.part(key) if key else Facts({}, facts.where)
    told = dict(part.values)
    # Beside `rope_parameters` transformers also saves a factor of its class's own, which nobody reads then.
    for name in ("rope_theta", "partial_rotary_factor"):
        told[name] = (part if part.has(name) else facts).require({name: float})[name]
    if facts.has("rope_theta") and facts.get("rope_theta") != told["rope_theta"]:
        message = f"gives two values as rope_theta: {facts.get('rope_theta')} and {told['rope_theta']:g}"
        raise Refused([found("config-contradicts-itself", where=facts.where, message=message)])
    kind = told.pop("type", None)
    told["rope_type"] = told.get("rope_type") or kind or "default"
    return told
