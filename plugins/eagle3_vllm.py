"""EAGLE-3 as vLLM's own model classes read it (`--speculative-config '{"method": "eagle3", …}'`), with nothing unsaid.

The unified names, and at the top level of config.json what a unified one nests or implies: every flag, the count of
verifier states and their boundary ids, which vLLM takes as they stand. Trainers write these architecture names too, but
leave the ids or the flags to a server's guess: their checkpoints are other dialects.
"""

from __future__ import annotations

from dataclasses import replace

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Export, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.eagle3 import EAGLE3
from spec_convert.plugins.families import eagle3, eagle3_out, examples
from spec_convert.plugins.families.aux_layers import KEY
from spec_convert.plugins.families.promises import broken_promises, layer_biases
from spec_convert.rules import found

LLAMA, QWEN3 = "Eagle3LlamaForCausalLM", "Eagle3Qwen3ForCausalLM"


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=eagle3.looks_like_eagle3(checkpoint)
        | {
            f"the architecture {LLAMA} or {QWEN3}": checkpoint.architecture in (LLAMA, QWEN3),
            f"`{KEY}` at the top level of config.json": bool(checkpoint.get(KEY)),
            "`norm_before_residual` in config.json": checkpoint.get("norm_before_residual") is not None,
            "no mark of a home-made trainer": not eagle3.made_at_home(checkpoint),
        }
    )


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    facts = Facts.of(checkpoint)
    normal = eagle3.layout(checkpoint, facts, facts, *eagle3.norms_before_fc(checkpoint))
    promises = broken_promises(facts, layer_biases(checkpoint))
    return replace(normal, findings=(*normal.findings, *promises, *_qk_norms(checkpoint, facts)))


def _qk_norms(checkpoint: Checkpoint, facts: Facts) -> list[Finding]:
    """The Qwen3 class norms queries and keys, by ones when the file has nothing; the Llama class loads no norms."""
    qwen, normed = checkpoint.architecture == QWEN3, eagle3.has_qk_norm(checkpoint)
    if qwen == normed:
        return []
    if qwen:
        message = f"{QWEN3} norms queries and keys, and the file holds no such norms"
        return [found("missing-tensor", where=facts.where, message=message)]
    message = f"{LLAMA} has no norms on queries and keys, and the file holds some"
    return [found("config-contradicts-tensors", where=facts.where, message=message)]


def describe(draft: Draft) -> Described:
    facts = Facts.of(draft.checkpoint)
    return eagle3.describe_as_said(draft, facts, facts)


def example(sizes: Sizes) -> Example:
    config = examples.transformers_config(
        sizes,
        architectures=[LLAMA],
        draft_vocab_size=sizes.draft_vocabulary,
        num_aux_hidden_states=examples.STATES,
        **dict.fromkeys(eagle3_out.FLAGS, False),
        **{KEY: examples.boundary_ids(sizes)},
    )
    return examples.eagle3_example(sizes, config, first=examples.FIRST_LAYER_AS_LAYER_0)


FORMAT = replace(
    EAGLE3,
    name="eagle3-vllm",
    title="EAGLE-3 for vLLM's own classes",
    reference="https://github.com/vllm-project/vllm (vllm/model_executor/models/llama_eagle3.py)",
    tables=eagle3.TABLES | eagle3.EXTRA_NORMS,
    recognise=recognise,
    layout=layout,
    describe=describe,
    example=example,
    exports=(Export(target="vllm", of="eagle3", write=eagle3_out.for_vllm),),
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
