"""EAGLE-1 with three extra layernorms (the "TTT" checkpoints of nm-testing, trained by speculators' research code).

    u = fc(cat(embed_layernorm(embedding), hidden_layernorm(state))) … logits = head(lm_head_layernorm(state'))

Converters before this one skipped `hidden_layernorm` as unnecessary or moved it behind the fusion: both compute
another function. It is kept where it was trained, before the fusion. The state fed to the next step is not normed.
"""

from __future__ import annotations

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import eagle1, llama
from spec_convert.rules import found
from spec_convert.tensor_map import TensorMap, drop

WITHOUT = TensorMap(*(drop(name, because="--no-layernorms") for name in eagle1.LAYERNORM_TENSORS))


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=eagle1.looks_like_eagle1(checkpoint)
        | {
            "layernorms around the fusion": eagle1.has_layernorms(checkpoint),
        }
    )


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    bias, findings = eagle1.fusion_bias_rows(checkpoint, request, eagle1.BIAS_TENSOR, "fc.bias")
    norms = eagle1.LAYERNORMS
    if request.layernorms is False:
        norms = WITHOUT
        findings.append(_dropped())
    rows = TensorMap(eagle1.BODY, eagle1.NO_EXTRA_NORMS, norms, bias, eagle1.qkv_bias_rows(checkpoint))
    return Layout(table=rows, sizes=llama.sizes(Facts.of(checkpoint)), findings=tuple(findings))


def _dropped() -> Finding:
    message = "the layernorms are in the file and trained: without them the draft computes another function"
    return found("flag-contradicts-tensors", where="--no-layernorms", message=message)


def describe(draft: Draft) -> Described:
    kept = "hidden_layernorm.weight" in draft.mapped.targets
    return eagle1.describe(draft, Facts.of(draft.checkpoint), position="before_fusion" if kept else None)


FORMAT = Format(
    name="eagle-layernorms",
    title="EAGLE-1 with extra layernorms",
    reference="https://github.com/vllm-project/speculators (research/hass, nm-testing/Eagle_Speculator_*_TTT)",
    produces="eagle",
    tables=eagle1.TABLES | {"layernorms": eagle1.LAYERNORMS, "layernorms with --no-layernorms": WITHOUT},
    recognise=recognise,
    features=eagle1.features,
    layout=layout,
    describe=describe,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
