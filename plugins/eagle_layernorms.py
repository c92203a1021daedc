"""EAGLE-1 with three extra layernorms (the "TTT" checkpoints of nm-testing, trained by speculators' research code).

    u = fc(cat(embed_layernorm(embedding), hidden_layernorm(state))) … logits = head(lm_head_layernorm(state'))

Converters before this one skipped `hidden_layernorm` as unnecessary or moved it behind the fusion: both compute
another function. It is kept where it was trained, before the fusion. The state fed to the next step is not normed.
"""

from __future__ import annotations

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import eagle1, examples, llama
from spec_convert.tensor_map import TensorMap


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=eagle1.looks_like_eagle1(checkpoint)
        | {
            "layernorms around the fusion": eagle1.has_layernorms(checkpoint),
        }
    )


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    bias, about_bias = eagle1.fusion_bias_rows(checkpoint, request, eagle1.BIAS_TENSOR)
    norms, about_norms = eagle1.layernorm_rows(eagle1.LAYERNORMS, request)
    findings = (*about_bias, *about_norms, *eagle1.token_lists(checkpoint))
    rows = TensorMap(eagle1.BODY, eagle1.NO_EXTRA_NORMS, norms, bias, eagle1.qkv_bias_rows(checkpoint))
    return Layout(table=rows, sizes=llama.sizes(Facts.of(checkpoint)), findings=findings)


def describe(draft: Draft) -> Described:
    kept = "hidden_layernorm.weight" in draft.mapped.targets
    return eagle1.describe(draft, Facts.of(draft.checkpoint), position="before_fusion" if kept else None)


def example(sizes: Sizes) -> Example:
    config = examples.transformers_config(sizes, transformers_version="4.42.3")
    del config["head_dim"]  # which that release did not write
    return examples.eagle1_example(sizes, config, eagle1.LAYERNORMS)


FORMAT = Format(
    name="eagle-layernorms",
    title="EAGLE-1 with extra layernorms",
    reference="https://github.com/vllm-project/speculators (research/hass, nm-testing/Eagle_Speculator_*_TTT)",
    produces="eagle",
    tables=eagle1.TABLES
    | {
        "layernorms": eagle1.LAYERNORMS,
        "layernorms with --no-layernorms": eagle1.without(eagle1.LAYERNORMS),
    },
    recognise=recognise,
    features=eagle1.features,
    layout=layout,
    describe=describe,
    flags=eagle1.FLAGS,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
