"""EAGLE-3 and 3.1 as SpecForge trains them: layer ids that count outputs, explicit head sizes, norms before fc.

An id in `eagle_config` is the layer whose *output* is taken, one less than the boundary id that servers expect; without
ids the default is 1, N//2-1, N-4. `norm_output` only says that the norm is applied before the head: the state fed back
is never normed here, so servers, which read the key the other way, must be told false. With `norm_output: false` there
is no norm before the head, which no server computes.

Until November 2025 SpecForge trained with base 10000 and without scaling, whatever config.json says of rope, and files
of AngelSlim look the same: nothing tells them apart. What config.json says is written, with a note.
"""

from __future__ import annotations

from dataclasses import replace

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Export, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.eagle3 import EAGLE3
from spec_convert.plugins.families import eagle3, eagle3_out, examples, nemo
from spec_convert.plugins.families.aux_layers import KEY
from spec_convert.plugins.families.rope import DEFAULT_THETA, rope
from spec_convert.rules import found

ARCHITECTURE = "LlamaForCausalLMEagle3"
DIALECT = eagle3.Dialect(norm_before_residual=False, norm_output=False, convention="output")


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=eagle3.looks_like_eagle3(checkpoint)
        | {
            f"the architecture {ARCHITECTURE}": checkpoint.architecture == ARCHITECTURE,
            "no mark of AngelSlim": not eagle3.trained_by_angelslim(checkpoint),
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
    described = eagle3.describe(draft, facts, facts, DIALECT)
    newer = draft.checkpoint.get("norm_output") is not None or eagle3.norms_before_fc(draft.checkpoint)
    if newer or draft.request.rope_theta is not None:
        return described
    return replace(described, findings=(*described.findings, *_rope_as_trained(facts, draft.request)))


def _rope_as_trained(facts: Facts, request: Request) -> list[Finding]:
    """What config.json says of rope may not be what the trainer of that time computed with."""
    theta, scaling, _ = rope(facts, request)
    if theta == DEFAULT_THETA and scaling is None:
        return []
    scaled = " and a scaling" if scaling else ""
    message = f"says rope_theta {theta:g}{scaled}; SpecForge before 2025-11 and AngelSlim trained with 10000 and none"
    hint = "`--rope-theta 10000` when the draft is of theirs; measure which one is accepted more"
    if scaling:
        hint = "when the draft is of theirs, take rope_scaling out of config.json and give `--rope-theta 10000`"
    return [found("rope-as-trained-unknown", where=facts.where, message=message, hint=hint)]


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
