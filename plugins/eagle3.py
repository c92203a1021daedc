"""EAGLE-3 as SafeAILab publishes it (`yuhuili/EAGLE3-*`): one `midlayer`, boundary ids, nothing said of rope.

`config.json` has no rope_theta and no layer ids; both are then the authors' constants (10000 and 2, N//2, N-3), which
the drafts were trained with, whatever the verifier uses. The residual is taken before `hidden_norm`. Checkpoints that
spell the layer `layers.0.` under the same architecture name were converted from speculators' research trainer, whose
residual is taken after it: nothing in the file tells, so the user must.
"""

from __future__ import annotations

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.facts import Facts
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import eagle3


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=eagle3.looks_like_eagle3(checkpoint)
        | {"the architecture LlamaForCausalLM": checkpoint.architecture == "LlamaForCausalLM"},
        supporting={"one layer called `midlayer`": eagle3.first_layer(checkpoint) == "midlayer."},
    )


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    facts = Facts.of(checkpoint)
    return eagle3.layout(checkpoint, facts, facts)


def describe(draft: Draft) -> Described:
    facts = Facts.of(draft.checkpoint)
    authors = eagle3.first_layer(draft.checkpoint) == "midlayer."
    dialect = eagle3.Dialect(norm_before_residual=False if authors else None, norm_output=False, convention="boundary")
    return eagle3.describe(draft, facts, facts, dialect)


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
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [EAGLE3]
