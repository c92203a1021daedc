"""EAGLE-3 with the verifier's own head, frozen (`LlamaForCausalLMEagle3SharedHead`, a SpecForge fork).

Full vocabulary. Its `d2t` is the *absolute* identity, which servers would read as offsets (token i becomes 2i), and
any map at full vocabulary makes vLLM fail: both maps are dropped. The head in the file is kept: it is the verifier's.
"""

from __future__ import annotations

from dataclasses import replace

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.formats import Described, Draft, Format
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.eagle3 import EAGLE3
from spec_convert.plugins.families import eagle3, examples

ARCHITECTURE = "LlamaForCausalLMEagle3SharedHead"
DIALECT = eagle3.Dialect(norm_before_residual=False, norm_output=False, convention="output")


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=eagle3.looks_like_eagle3(checkpoint)
        | {f"the architecture {ARCHITECTURE}": checkpoint.architecture == ARCHITECTURE},
        supporting={
            "the draft's vocabulary is the verifier's": (
                checkpoint.get("draft_vocab_size") in (None, checkpoint.get("vocab_size"))
            )
        },
    )


def describe(draft: Draft) -> Described:
    facts = Facts.of(draft.checkpoint)
    return eagle3.describe(draft, facts, facts, DIALECT)


def example(sizes: Sizes) -> Example:
    vocabulary = sizes.vocabulary
    config = examples.authors_config(sizes, architectures=[ARCHITECTURE], draft_vocab_size=vocabulary)
    shapes = examples.eagle3_shapes(sizes) | {"lm_head.weight": (vocabulary, sizes.hidden)}
    return Example(config=config, shapes=shapes, values={"d2t": range(vocabulary), "t2d": [True] * vocabulary})


FORMAT = replace(
    EAGLE3,
    name="eagle3-shared-head",
    title="EAGLE-3 with a shared head",
    reference="https://github.com/ajWithNucleus/SpecForge",
    recognise=recognise,
    describe=describe,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
