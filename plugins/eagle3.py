"""EAGLE-3 as SafeAILab publishes it (`yuhuili/EAGLE3-*`): one `midlayer`, boundary ids, nothing said of rope.

`config.json` has no rope_theta and no layer ids; both are then the authors' constants (10000 and 2, N//2, N-3), which
the drafts were trained with, whatever the verifier uses. The residual is taken before `hidden_norm`. Checkpoints that
spell the layer `layers.0.` under the same architecture name are `eagle3-research`, where it may be otherwise.
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
from spec_convert.plugins.families import eagle3, eagle3_out, examples
from spec_convert.rules import found

AUTHORS = eagle3.Dialect(norm_before_residual=False, norm_output=False, convention="boundary")


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=eagle3.looks_like_eagle3(checkpoint)
        | {
            "the architecture LlamaForCausalLM": checkpoint.architecture == "LlamaForCausalLM",
            "one layer called `midlayer`": eagle3.first_layer(checkpoint) == "midlayer.",
        }
    )


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    facts = Facts.of(checkpoint)
    if facts.get("norm_output") not in (None, False):
        message = "norm_output asks for the normed state to be fed back, which the code of this dialect does not do"
        hint = "remove the key if that code trained the draft"
        raise Refused([found("flag-contradicts-dialect", where=facts.where, message=message, hint=hint)])
    return eagle3.layout(checkpoint, facts, facts)


def describe(draft: Draft) -> Described:
    facts = Facts.of(draft.checkpoint)
    return eagle3.describe(draft, facts, facts, AUTHORS)


def example(sizes: Sizes) -> Example:
    config = examples.authors_config(sizes, draft_vocab_size=sizes.draft_vocabulary)
    return examples.eagle3_example(sizes, config)


EAGLE3 = Format(
    name="eagle3",
    title="EAGLE-3",
    reference="https://github.com/SafeAILab/EAGLE (arXiv 2503.01840)",
    produces="eagle3",
    tables=eagle3.TABLES,
    recognise=recognise,
    features=eagle3.features,
    layout=layout,
    describe=describe,
    flags=eagle3.FLAGS,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    # Only here: formats made of EAGLE3 must not write the same target.
    return [replace(EAGLE3, exports=(Export(target="safeai", of="eagle3", write=eagle3_out.for_authors),))]
