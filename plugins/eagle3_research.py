"""EAGLE-3 of speculators' `research/eagle3` (`nm-testing/Speculator-Qwen3-8B-Eagle3`), as trained and as converted.

The trainer saves the norms of the first layer at the root, that before the head as `lm_head_layernorm`, and no
vocabulary map; its files are pickles called `model3.safetensors`. It takes the residual after `hidden_norm`, unlike
everybody else, and other states of the verifier (3, N//2+1, N-2), though released drafts may differ: `--aux-layer-ids`.

Its own converter gives the tensors the names that others use, under the architecture name of the authors. So written,
nothing in the file tells who trained it: the user says it with `--norm-before-residual` or `--no-norm-before-residual`.
"""

from __future__ import annotations

from dataclasses import replace

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes, shapes_of
from spec_convert.facts import Facts
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.eagle3 import AUTHORS, EAGLE3
from spec_convert.plugins.eagle3 import layout as authors_layout
from spec_convert.plugins.families import eagle3, examples, llama
from spec_convert.tensor_map import TensorMap, move

TRAINER = replace(AUTHORS, norm_before_residual=True, has_default_ids=False)
UNKNOWN = replace(AUTHORS, norm_before_residual=None)
HIDDEN_NORM, LAST_NORM = "hidden_norm.weight", "lm_head_layernorm.weight"
QUERY = "layers.0.self_attn.q_proj.weight"

# fmt: off
AS_TRAINED = TensorMap(
    eagle3.BEFORE_LAYERS,
    move(HIDDEN_NORM,              "layers.0.hidden_norm.weight",     shape="hidden"),
    move("input_layernorm.weight", "layers.0.input_layernorm.weight", shape="hidden"),
    move(LAST_NORM,                "norm.weight",                     shape="hidden"),
    (llama.attention("2*hidden") + llama.MLP + llama.norms("post_attention_layernorm")).under("layers.0."),
    eagle3.LATER_LAYER.under("layers.{i:1+}."),
    llama.ROTARY,
)
# fmt: on


def recognise(checkpoint: Checkpoint) -> Evidence:
    family = _looks_as_trained(checkpoint) if _is_as_trained(checkpoint) else eagle3.looks_like_eagle3(checkpoint)
    return weigh(
        required=family
        | {
            "the architecture LlamaForCausalLM": checkpoint.architecture == "LlamaForCausalLM",
            "a first layer called `layers.0`": eagle3.first_layer(checkpoint) == "layers.0.",
        }
    )


def _is_as_trained(checkpoint: Checkpoint) -> bool:
    return HIDDEN_NORM in checkpoint and LAST_NORM in checkpoint


def _looks_as_trained(checkpoint: Checkpoint) -> dict[str, bool]:
    query, norm = checkpoint.shape(QUERY), checkpoint.shape(HIDDEN_NORM)
    return {
        "a norm on the verifier's state and one before the head, both at the root": True,
        "a first layer that reads embedding and state side by side (twice the hidden size)": (
            query is not None and norm is not None and len(query) == 2 and len(norm) == 1 and query[1] == 2 * norm[0]
        ),
        llama.NOT_UNIFIED: not llama.is_unified(checkpoint),
    }


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    if not _is_as_trained(checkpoint):
        return authors_layout(checkpoint, request)
    facts = Facts.of(checkpoint)
    return eagle3.layout(checkpoint, facts, facts, body=AS_TRAINED)


def describe(draft: Draft) -> Described:
    facts = Facts.of(draft.checkpoint)
    trainer = _is_as_trained(draft.checkpoint) or eagle3.said_of_the_residual(draft, facts)
    return eagle3.describe(draft, facts, facts, TRAINER if trainer else UNKNOWN)


def example(sizes: Sizes) -> Example:
    """As trained, with the verifier's whole vocabulary."""
    middle = sizes.verifier_layers // 2 + 1
    vocabulary = {"lm_head.weight": (sizes.vocabulary, sizes.hidden)}
    return Example(
        config=examples.transformers_config(sizes),
        shapes=shapes_of(AS_TRAINED, sizes, aux=examples.STATES, target=sizes.hidden) | vocabulary,
        flags={"aux_layer_ids": (3, middle, sizes.verifier_layers - 2)},
    )


FORMAT = replace(
    EAGLE3,
    name="eagle3-research",
    title="EAGLE-3 of speculators' research trainer",
    reference="https://github.com/vllm-project/speculators (research/eagle3)",
    tables=eagle3.TABLES | {"as trained": AS_TRAINED},
    recognise=recognise,
    layout=layout,
    describe=describe,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
