"""EAGLE-3 and 3.1 as NVIDIA NeMo Automodel trains them (`LlamaEagle3DraftModel`): every tensor of the backbone behind
`model.`, and the verifier's own config.json around the draft's few keys.

So `model_type` and `num_hidden_layers` are the verifier's, whose kind of layers the draft does not have: it is always
one Llama layer without norms on queries and keys. `norm_output` means here what servers mean by it. The layer ids are
not recorded; the usual ones count outputs. Older releases left `d2t` to a file beside the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes, shapes_of
from spec_convert.facts import Facts
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.eagle3 import EAGLE3
from spec_convert.plugins.families import eagle3, examples, llama, nemo
from spec_convert.plugins.families.vocabulary import TABLES as VOCABULARY_TABLES
from spec_convert.tensor_map import TensorMap

BODY = TensorMap(eagle3.FUSION, eagle3.FIRST_LAYER.under("layers.0."), llama.ROTARY)
BIASES = llama.ATTENTION_BIAS.under("layers.0.")
FLAT = {"body": BODY, "attention biases": BIASES, "norm per verifier state": eagle3.NORM_PER_STATE, **VOCABULARY_TABLES}


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=eagle3.looks_like_eagle3(nemo.flat(checkpoint))
        | {f"a mark of NeMo Automodel ({nemo.ARCHITECTURE}, or names behind `model.`)": nemo.trained(checkpoint)},
    )


def features(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return eagle3.features(nemo.flat(checkpoint))


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    facts = nemo.facts_of(checkpoint)
    none = TensorMap()
    return nemo.layout(
        checkpoint, facts, lambda flat: eagle3.layout(flat, facts, facts, *_norms(flat), body=BODY, qk_norm=none)
    )


def _norms(checkpoint: Checkpoint) -> list[TensorMap]:
    return [eagle3.NORM_PER_STATE] if any(name.startswith("fc_norm.") for name in checkpoint) else []


def describe(draft: Draft) -> Described:
    facts = nemo.facts_of(draft.checkpoint)
    dialect = eagle3.Dialect(norm_before_residual=False, norm_output=_norms_output(facts), convention="output")
    return eagle3.describe(draft, facts, facts, dialect)


def _norms_output(facts: Facts) -> bool:
    """Releases before EAGLE-3.1 know neither of its keys and norm nothing; all others write both."""
    keys = ("fc_norm", "norm_output")
    return facts.require(dict.fromkeys(keys, bool))["norm_output"] if any(map(facts.has, keys)) else False


def example(sizes: Sizes) -> Example:
    """EAGLE-3.1 for a Qwen3, whose layers have norms on queries and keys."""
    config = examples.transformers_config(
        sizes,
        architectures=[nemo.ARCHITECTURE],
        draft_vocab_size=sizes.draft_vocabulary,
        fc_norm=True,
        layer_types=["full_attention"] * sizes.verifier_layers,
        max_window_layers=sizes.verifier_layers,
        model_type="qwen3",
        norm_output=True,
        num_hidden_layers=sizes.verifier_layers,
        parallel_drafting=False,
        target_hidden_size=sizes.hidden,
    )
    flat = examples.eagle3_example(replace(sizes, layers=1), config, first=examples.FIRST_LAYER_AS_LAYER_0)
    norms = shapes_of(eagle3.NORM_PER_STATE, sizes, layers=examples.STATES, target=sizes.hidden)
    shapes = {**flat.shapes} | norms | {examples.EMBEDDING: (sizes.vocabulary, sizes.hidden)}
    nested = {name if name in nemo.OUTSIDE else nemo.PREFIX + name: shape for name, shape in shapes.items()}
    return replace(flat, shapes=nested)


FORMAT = replace(
    EAGLE3,
    name="eagle3-nemo",
    title="EAGLE-3 and 3.1 of NeMo Automodel",
    reference="https://github.com/NVIDIA-NeMo/Automodel",
    tables={name: nemo.nested(table) for name, table in FLAT.items()},
    recognise=recognise,
    features=features,
    layout=layout,
    describe=describe,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
