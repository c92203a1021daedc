"""The `eagle` type that the speculators library wrote until 0.6: EAGLE-1 renamed, layernorms in another place.

`fusion_fc` is `fc`, `transformer.` is `layers.0.`. Its layernorms are another function than the research code's: the
norm on the hidden side sits *after* the fusion, inside the residual branch (`transformer.input_layernorm`). Embedding
and head were never saved; they are the verifier's. No current server or library reads these directories.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes, shapes_of
from spec_convert.facts import Facts
from spec_convert.formats import Described, Draft, Export, Format, Layout, Native, Request, UnifiedDraft
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import eagle1, examples, llama, out
from spec_convert.plugins.families.out import EMBEDDING
from spec_convert.tensor_map import TensorMap, drop, keep, move

BIAS_TENSOR = "fusion_fc.bias"
NOT_SAVED = "the verifier's, which that library never saves"
# fmt: off
BODY = TensorMap(
    move("fusion_fc.weight",    "fc.weight", shape="hidden 2*hidden"),
    keep("embed_tokens.weight",              shape="vocabulary hidden", optional=True),
    eagle1.FIRST_LAYER.under("transformer.", "layers.0."),
    eagle1.BORROWED,
)
LAYERNORM_NAMES = {
    "embedding_layernorm.weight":         "embed_layernorm.weight",
    "transformer.input_layernorm.weight": "layers.0.input_layernorm.weight",
    "pre_lm_head_layernorm.weight":       "lm_head_layernorm.weight",
}
# fmt: on
LAYERNORMS = TensorMap(*(move(old, new, shape="hidden") for old, new in LAYERNORM_NAMES.items()))


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required={
            "a fusion called `fusion_fc`": "fusion_fc.weight" in checkpoint,
            "one layer called `transformer`": any(name.startswith("transformer.") for name in checkpoint),
        },
        supporting={'`speculators_model_type: "eagle"`': checkpoint.get("speculators_model_type") == "eagle"},
    )


def has_layernorms(checkpoint: Checkpoint) -> bool:
    return any(name in checkpoint for name in LAYERNORM_NAMES)


def features(checkpoint: Checkpoint) -> dict[str, Any]:
    fusion = checkpoint.shape("fusion_fc.weight")
    layer = checkpoint.get("transformer_layer_config")
    return {
        "fusion_bias": BIAS_TENSOR in checkpoint,
        "layernorms": has_layernorms(checkpoint),
        "hidden_size": fusion[0] if fusion else None,
        "vocab_size": layer.get("vocab_size") if isinstance(layer, dict) else None,
        "draft_vocab_size": None,
        "layers": 1,
        "own_embeddings": "embed_tokens.weight" in checkpoint,
    }


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    config = Facts.of(checkpoint)
    promised = config.get("layernorms") is True and request.layernorms is None
    rows, findings = eagle1.fusion_bias_rows(checkpoint, request, BIAS_TENSOR)
    if has_layernorms(checkpoint) or promised:
        norms, about_norms = eagle1.layernorm_rows(LAYERNORMS, request)
        rows, findings = rows + norms, findings + about_norms
    elif request.layernorms:
        findings.append(eagle1.no_layernorms_to_keep())
    layer = config.part("transformer_layer_config")
    findings += eagle1.promised_biases(checkpoint, config, layer)
    return Layout(table=BODY + rows, sizes=llama.sizes(layer), findings=tuple(findings))


def describe(draft: Draft) -> Described:
    kept = "layers.0.input_layernorm.weight" in draft.mapped.targets
    facts = Facts.of(draft.checkpoint).part("transformer_layer_config")
    return eagle1.describe(draft, facts, position="after_fusion" if kept else None)


def export(draft: UnifiedDraft) -> Native:
    """The directory as that library's 0.6 would have saved it: one layer, and nothing that is the verifier's."""
    same = EMBEDDING not in draft.checkpoint or out.is_the_verifiers(draft, EMBEDDING)
    table = out.leaving((BODY + (LAYERNORMS if draft.config["layernorms"] else TensorMap())).inverse, EMBEDDING)
    if draft.config["fusion_bias"]:
        table += TensorMap(move(BIAS_TENSOR, eagle1.BIAS_TENSOR, shape="hidden")).inverse
    findings, changed = out.cannot("speculators 0.6", _not_in_the_library(draft, same)), {}
    if EMBEDDING in draft.checkpoint and not findings:
        table += TensorMap(drop(EMBEDDING, because=NOT_SAVED))
        findings, changed = (out.changed(EMBEDDING, f"is left out: it is {NOT_SAVED}"),), {EMBEDDING: NOT_SAVED}
    return Native(
        table=table,
        config=_old_config(draft),
        sizes=out.sizes(draft),
        findings=findings,
        changed=changed,
    )


def _not_in_the_library(draft: UnifiedDraft, same_embedding: bool) -> dict[str, bool]:
    facts, rotation = out.layer(draft), out.rope_of_verifier(draft)
    ours = (facts["rope_theta"], facts["rope_scaling"], facts["head_dim"])
    dynamic = "dynamic" in (facts["rope_scaling"] or {}).values()
    return {
        "its layernorm on the state sits after the fusion": draft.config["layernorm_position"] == "before_fusion",
        "it has one layer": facts["num_hidden_layers"] != 1,
        "it has no biases on queries, keys and values alone": facts["qkv_bias"],
        "it takes the embedding from the verifier, which has another": not same_embedding,
        f"it rotates as the verifier does, base, scaling, head size {rotation}, not as the draft {ours}": ours
        != rotation,
        "its dynamic scaling would grow from the verifier's number of positions, which is another": (
            dynamic and draft.verifier.text_config.get("max_position_embeddings") != facts["max_position_embeddings"]
        ),
    }


def _old_config(draft: UnifiedDraft) -> dict[str, Any]:
    kept = (
        "speculators_model_type",
        "fusion_bias",
        "layernorms",
        "transformer_layer_architecture",
        "speculators_config",
    )
    layer = {key: value for key, value in out.layer(draft).items() if key != "qkv_bias"}
    return {
        "architectures": ["EagleSpeculator"],
        **{key: draft.config[key] for key in kept},
        "speculators_version": "0.6.0",
        "torch_dtype": draft.config["torch_dtype"],
        "transformer_layer_config": layer,
    }


def example(sizes: Sizes) -> Example:
    """With all that it can have; it always has one layer."""
    one = replace(sizes, layers=1)
    config = {
        "architectures": ["EagleSpeculator"],
        "auto_map": {"": "eagle.EagleSpeculatorConfig"},
        "base_model_ep_plan": None,
        "fusion_bias": True,
        "has_no_defaults_at_init": False,
        "layernorms": True,
        "speculators_config": examples.speculators_config("eagle"),
        "speculators_model_type": "eagle",
        "speculators_version": "0.3.0",
        "transformer_layer_architecture": "LlamaDecoderLayer",
        "transformer_layer_config": examples.layer_config(one),
        "transformers_version": "4.57.1",
    }
    bias = TensorMap(move(BIAS_TENSOR, eagle1.BIAS_TENSOR, shape="hidden"))
    return Example(config=config, shapes=shapes_of(TensorMap(BODY, LAYERNORMS, bias), one))


FORMAT = Format(
    name="speculators-eagle",
    title="EAGLE-1 of the speculators library (up to 0.6)",
    reference="https://github.com/vllm-project/speculators (0.1 to 0.6)",
    produces="eagle",
    tables={"body": BODY, "layernorms": LAYERNORMS, "layernorms with --no-layernorms": eagle1.without(LAYERNORMS)},
    recognise=recognise,
    features=features,
    layout=layout,
    describe=describe,
    flags=eagle1.FLAGS,
    example=example,
    exports=(Export(target="speculators-0.6", of="eagle", write=export),),
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
