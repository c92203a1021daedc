"""MTP heads inside the models that they draft for: extracted from a target, of which everything else stays there.

Qwen3-Next and Qwen3.5 keep theirs under `mtp.`, in a layer of the target's own kind; the unified type `mtp` of the
speculators library holds exactly those. DeepSeek (and GLM, Kimi, …) count theirs as one more decoder layer with
`eh_proj`, MiMo and Ernie have names of their own; no class of the library builds their layers, so they are recognised
and refused: a server finds them in the target all the same. Of a target nothing is read but the headers and the bytes
of the head. `spec-convert stitch` is the way back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes, shapes_of
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import llama, mtp
from spec_convert.templates import Template
from spec_convert.tensor_map import TensorMap, drop, refuse
from spec_convert.verifier import EMBEDDINGS

# fmt: off
TARGET = TensorMap(
    drop("{part:model|lm_head|visual}.{rest...}", because="stays in the target"),
)
BESIDE = TensorMap(
    refuse("mtp.layers.{i:1+}.{rest...}",            because="the unified type holds one MTP layer"),
    refuse("mtp.{n:embed_tokens|lm_head}.{rest...}", because="the unified type shares the target's embedding and head"),
)
# Where the heads lie that the unified type cannot hold, and why it cannot.
OTHERS = {
    "deepseek": ("{rest...}.eh_proj.weight",
                 "an MTP layer as DeepSeek has it (`eh_proj`), with latent attention or experts of its kind"),
    "mimo":     ("model.mtp_layers.{i:int}.input_proj.weight",
                 "an MTP layer of MiMo, which takes the state before the embedding and has biases of q, k and v"),
    "ernie":    ("model.mtp_linear_proj.{i:int}.weight",
                 "an MTP layer of Ernie (`mtp_block`)"),
}
# fmt: on
QWEN = "mtp.fc.weight"
ANY = ("mtp.", "mtp_layers.", "mtp_block.")
SCALES = ("weight_scale", "weight_scale_inv", "input_scale", "qweight", "qzeros", "scales")


def family(checkpoint: Checkpoint) -> str | None:
    """Whose layout the MTP head of this checkpoint has, if it has one."""
    if QWEN in checkpoint:
        return "qwen"
    places = {name: Template(place) for name, (place, _) in OTHERS.items()}
    unknown = None
    for tensor in checkpoint:
        if "mtp" not in tensor and "eh_proj" not in tensor:
            continue  # as all but a few of a hundred thousand
        if (name := next((n for n, place in places.items() if place.match(tensor) is not None), None)) is not None:
            return name
        if tensor.removeprefix("model.").startswith(ANY):
            unknown = "unknown"
    return unknown


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required={
            "tensors of an MTP head (`mtp.`, `eh_proj`, `mtp_layers`, `mtp_block`)": family(checkpoint) is not None,
            llama.NOT_UNIFIED: not llama.is_unified(checkpoint),
        }
    )


def inside_target(checkpoint: Checkpoint) -> bool:
    """Whether the rest of the target is here too, and not the file of an MTP head alone."""
    return any(name in checkpoint for name in EMBEDDINGS)


def features(checkpoint: Checkpoint) -> Mapping[str, Any]:
    fusion = checkpoint.shape(QWEN)
    return {
        "family": family(checkpoint),
        "hidden_size": fusion[0] if fusion else None,
        "layers": len({name.split(".")[2] for name in checkpoint if name.startswith("mtp.layers.")}),
        "inside_target": inside_target(checkpoint),
    }


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    _refuse_others(checkpoint)
    facts = mtp.text_facts(checkpoint)
    sizes = mtp.sizes(facts)
    rows = llama.MLP
    if mtp.has_experts(facts):
        stacked = "mtp.layers.0.mlp.experts.gate_up_proj" in checkpoint
        rows = mtp.ROUTER + (mtp.STACKED_EXPERTS if stacked else mtp.single_experts(sizes["experts"].value))
    return Layout(table=TensorMap(TARGET, mtp.native(rows), BESIDE), sizes=sizes)


def _refuse_others(checkpoint: Checkpoint) -> None:
    """Raises Refused for heads that the unified type cannot hold."""
    kind = family(checkpoint)
    if kind in OTHERS:
        place, why = OTHERS[kind]
        raise Refused([mtp.not_unified(place, f"{why}: the speculators library builds none")])
    if kind != "qwen":
        raise Refused([mtp.not_unified("mtp", f"an MTP head without {QWEN}, in a layout that is not known here")])
    quantised = [name for name in checkpoint if name.startswith("mtp.") and name.endswith(SCALES)]
    if quantised:
        raise Refused([mtp.not_unified(quantised[0], "the MTP head is quantised, which the unified type cannot say")])


def describe(draft: Draft) -> Described:
    return mtp.describe(draft, mtp.text_facts(draft.checkpoint))


def example(sizes: Sizes) -> Example:
    """Dense Qwen3.5, whose other half sees: two layers of the language model, of which names suffice."""
    layer = config_of(sizes)
    config = {"architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "text_config": layer}
    table = (sizes.vocabulary, sizes.hidden)
    target = {
        "model.language_model.embed_tokens.weight": table,
        "model.language_model.norm.weight": (sizes.hidden,),
        "model.visual.pos_embed.weight": (4, sizes.hidden),
        "lm_head.weight": table,
    }
    return Example(config=config, shapes=target | shapes_of(mtp.native(llama.MLP), sizes))


def config_of(sizes: Sizes, **more: Any) -> dict[str, Any]:
    """What Qwen3.5 says of its language model, as far as it concerns the MTP layer."""
    kinds = ["full_attention" if number % 4 == 3 else "linear_attention" for number in range(sizes.verifier_layers)]
    rope = {"rope_type": "default", "rope_theta": 1e7, "partial_rotary_factor": 0.5}
    return {
        "attention_bias": False,
        "head_dim": sizes.head_dim,
        "hidden_act": "silu",
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.inner,
        "layer_types": kinds,
        "max_position_embeddings": 2048,
        "model_type": "qwen3_5_text",
        "mtp_num_hidden_layers": 1,
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.verifier_layers,
        "num_key_value_heads": sizes.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_parameters": rope,
        "tie_word_embeddings": False,
        "vocab_size": sizes.vocabulary,
    } | more


FORMAT = Format(
    name="mtp",
    title="MTP head inside its target",
    reference="https://github.com/vllm-project/vllm (vllm/model_executor/models/qwen3_5_mtp.py)",
    produces="mtp",
    tables={
        "Qwen3.5": TensorMap(TARGET, mtp.native(llama.MLP), BESIDE),
        "Qwen3-Next, Qwen3.5 with experts, shown with two": TensorMap(
            TARGET, mtp.native(mtp.ROUTER + mtp.single_experts(2)), BESIDE
        ),
        "experts stacked": TensorMap(TARGET, mtp.native(mtp.ROUTER + mtp.STACKED_EXPERTS), BESIDE),
    },
    recognise=recognise,
    features=features,
    layout=layout,
    describe=describe,
    inside_target=inside_target,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
