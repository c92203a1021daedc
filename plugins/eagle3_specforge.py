"""EAGLE-3 and 3.1 as SpecForge trains them: layer ids that count outputs, explicit head sizes, norms before fc.

An id in `eagle_config` is the layer whose *output* is taken, one less than the boundary id that servers expect; without
ids the default is 1, N//2-1, N-4. `norm_output` only says that the norm is applied before the head: the state fed back
is never normed here, so servers, which read the key the other way, must be told false. With `norm_output: false` there
is no norm before the head, which no server computes.
"""

from __future__ import annotations

from dataclasses import replace

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.formats import Described, Draft, Export, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.eagle3 import EAGLE3
from spec_convert.plugins.families import eagle3, eagle3_out, examples, nemo
from spec_convert.plugins.families.aux_layers import KEY
from spec_convert.rules import found

ARCHITECTURE = "LlamaForCausalLMEagle3"
DIALECT = eagle3.Dialect(norm_before_residual=False, norm_output=False, convention="output")


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=eagle3.looks_like_eagle3(checkpoint)
        | {
            f"the architecture {ARCHITECTURE}": checkpoint.architecture == ARCHITECTURE,
            "no mark of TorchSpec": not eagle3.trained_by_torchspec(checkpoint),
            "no mark of NeMo Automodel": not nemo.trained(checkpoint),
        },
        against={"signs of ModelOpt's exporter": eagle3.exported_by_modelopt(checkpoint)},
    )


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    facts = Facts.of(checkpoint)
    if facts.get("norm_output") is False:
        message = "norm_output is false: no norm before the head, which no server computes"
        raise Refused([found("not-representable", where=facts.where, message=message)])
    return eagle3.layout(checkpoint, facts, facts, *eagle3.norms_before_fc(checkpoint))


def describe(draft: Draft) -> Described:
    facts = Facts.of(draft.checkpoint)
    return eagle3.describe(draft, facts, facts, DIALECT)


def example(sizes: Sizes) -> Example:
    config = examples.transformers_config(
        sizes,
        architectures=[ARCHITECTURE],
        draft_vocab_size=sizes.draft_vocabulary,
        eagle_config={KEY: examples.output_ids(sizes), "use_aux_hidden_state": True},
        norm_output=True,
    )
    return examples.eagle3_example(sizes, config)


FORMAT = replace(
    EAGLE3,
    name="eagle3-specforge",
    title="EAGLE-3 and 3.1 of SpecForge",
    reference="https://github.com/sgl-project/SpecForge",
    tables=eagle3.TABLES | eagle3.EXTRA_NORMS,
    recognise=recognise,
    layout=layout,
    describe=describe,
    example=example,
    exports=(Export(target="sglang", of="eagle3", write=eagle3_out.for_sglang),),
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
