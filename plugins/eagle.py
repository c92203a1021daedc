"""EAGLE-1 and EAGLE-2 as SafeAILab publishes them (`yuhuili/EAGLE-*`), and everybody who keeps their layout.

EAGLE-2 changes only the tree search: its checkpoints are EAGLE-1's byte for byte. Whether there is an `fc.bias` is
decided by the tensor: `config["bias"]` is absent in Vicuna's and LLaMA-2's configs, which have one, and its value must
never reach the unified config, where servers read it as a bias of the attention.
"""

from __future__ import annotations

from dataclasses import replace

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.formats import Described, Draft, Export, Format
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import eagle1, eagle1_out, examples, mlp_out


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=eagle1.looks_like_eagle1(checkpoint)
        | {
            "no layernorms around the fusion": not eagle1.has_layernorms(checkpoint),
        },
        supporting={"the frozen copy of the verifier's `embed_tokens`": "embed_tokens.weight" in checkpoint},
        against={
            'a trained `fc.bias` although config.json says "bias": false, as HASS does': (
                eagle1.bias_contradicts_config(checkpoint)
            )
        },
    )


def describe(draft: Draft) -> Described:
    return eagle1.describe(draft, Facts.of(draft.checkpoint))


def example(sizes: Sizes) -> Example:
    return examples.eagle1_example(sizes, examples.authors_config(sizes, rope_theta=500000.0, bias=False))


EAGLE = Format(
    name="eagle",
    title="EAGLE-1 and EAGLE-2",
    reference="https://github.com/SafeAILab/EAGLE (arXiv 2401.15077, 2406.16858)",
    produces="eagle",
    tables=eagle1.TABLES,
    recognise=recognise,
    features=eagle1.features,
    layout=eagle1.layout,
    describe=describe,
    flags=eagle1.FLAGS,
    example=example,
)


EXPORTS = (
    Export(target="vllm", of="eagle", write=eagle1_out.for_vllm),
    Export(target="vllm", of="eagle_mlp", write=mlp_out.for_vllm),
    Export(target="sglang", of="eagle", write=eagle1_out.for_sglang),
    Export(target="safeai", of="eagle", write=eagle1_out.for_authors),
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [replace(EAGLE, exports=EXPORTS)]  # only here: formats made of EAGLE must not write the same targets
