"""EAGLE-1 under other names, sound in every respect. Nobody publishes it; tests break one thing of it."""

from __future__ import annotations

from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.facts import Facts
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import eagle1, examples, llama
from spec_convert.testing import Example, Sizes, shapes_of

TABLE = eagle1.BODY.under("pig.", "")


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(required={"a pig": "pig.fc.weight" in checkpoint})


def features(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"hidden_size": checkpoint.get("hidden_size")}


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    return Layout(table=TABLE, sizes=llama.sizes(Facts.of(checkpoint)))


def describe(draft: Draft) -> Described:
    return eagle1.describe(draft, Facts.of(draft.checkpoint))


def example(sizes: Sizes) -> Example:
    config = examples.transformers_config(sizes, architectures=["PigForCausalLM"])
    return Example(config=config, shapes=shapes_of(TABLE, sizes))


PIG = Format(
    name="pig",
    title="Pig",
    reference="nowhere",
    produces="eagle",
    tables={"": TABLE},
    recognise=recognise,
    features=features,
    layout=layout,
    describe=describe,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [PIG]
