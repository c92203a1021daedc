"""EAGLE-3 of TorchSpec (its version is in config.json and in the weights' header): SpecForge's names, three traps.

A vocabulary that was reduced at the export has its head cut as `lm_head[d2t]`, with offsets taken for token ids: row i
is not the row of its token, and the right one is nowhere in the file. Such heads are refused. Embeddings are trained
frozen, as the verifier's, and some exports hold random numbers in their place: they are left out. The layer ids of the
training are not recorded, and the engines behind the trainer counted them as inputs or as outputs: the user must say.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.eagle3 import EAGLE3
from spec_convert.plugins.eagle3 import layout as authors_layout
from spec_convert.plugins.families import eagle3, examples
from spec_convert.rules import found
from spec_convert.tensor_map import TensorMap, drop
from spec_convert.validation.comparing import Table

ARCHITECTURE = "LlamaForCausalLMEagle3"
DIALECT = eagle3.Dialect(norm_before_residual=False, norm_output=False, convention="either")
EMBEDDING, HEAD = "embed_tokens.weight", "lm_head.weight"
FROZEN = TensorMap(drop(EMBEDDING, because="trained frozen, as the verifier's; some exports hold random numbers here"))
MOST, FEWEST = 16, 8  # pairs of rows to read, and without which nothing is proven: two tokens may share a row


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=eagle3.looks_like_eagle3(checkpoint)
        | {
            f"the architecture {ARCHITECTURE}": checkpoint.architecture == ARCHITECTURE,
            "the mark of TorchSpec": eagle3.trained_by_torchspec(checkpoint),
        }
    )


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    normal = authors_layout(checkpoint, request)
    if normal.sizes["target"].value != normal.sizes["hidden"].value:
        return normal  # the embedding cannot be the verifier's
    rows = TensorMap(*(row for row in normal.table if row.text != EMBEDDING), FROZEN)
    return replace(normal, table=rows)


def describe(draft: Draft) -> Described:
    facts = Facts.of(draft.checkpoint)
    described = eagle3.describe(draft, facts, facts, DIALECT)
    return replace(described, findings=(*described.findings, *_head_of_other_tokens(draft)))


def _head_of_other_tokens(draft: Draft) -> list[Finding]:
    """Whether equal offsets stand beside equal rows: the sign of a head that was cut with the offsets."""
    checkpoint = draft.checkpoint
    if "d2t" not in draft.mapped.targets:
        return []
    head, offsets = Table(checkpoint.files, checkpoint.tensors[HEAD]), checkpoint.read("d2t").tolist()
    repeats = [row for row, (one, next_one) in enumerate(pairwise(offsets)) if one == next_one]
    sample = repeats[:: max(1, len(repeats) // MOST)][:MOST]
    if len(sample) < FEWEST or any(head.row(row).tobytes() != head.row(row + 1).tobytes() for row in sample):
        return []
    message = f"rows i and i+1 are identical in all of {len(sample)} places where d2t[i] = d2t[i+1]"
    hint = "export it from the training checkpoint again, without a reduced vocabulary: the right rows are not in here"
    return [found("head-rows-duplicated", where=HEAD, message=message, hint=hint)]


def example(sizes: Sizes) -> Example:
    config = examples.transformers_config(
        sizes,
        architectures=[ARCHITECTURE],
        draft_vocab_size=sizes.draft_vocabulary,
        _torchspec_version="0.1.0",
    )
    made = examples.eagle3_example(sizes, config)
    shapes = {**made.shapes, EMBEDDING: (sizes.vocabulary, sizes.hidden)}
    return replace(made, shapes=shapes, flags={"aux_layer_convention": "output"})


FORMAT = replace(
    EAGLE3,
    name="eagle3-torchspec",
    title="EAGLE-3 of TorchSpec",
    reference="https://github.com/torchspec-project/TorchSpec",
    tables=eagle3.TABLES | {"embedding of the verifier": FROZEN},
    recognise=recognise,
    layout=layout,
    describe=describe,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
