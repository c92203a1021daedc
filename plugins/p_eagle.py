"""P-EAGLE drafts of SpecForge (`PEagleDraftModel`), of NVIDIA NeMo Automodel, and for vLLM's own classes.

All hold EAGLE-3's tensors and `mask_hidden`. The mask token is `mask_token_id` in NeMo's config.json, `pard_token` or
`ptd_token_id` in vLLM's; SpecForge writes it nowhere, so that it has to be put there. SpecForge and NeMo count layers
by their outputs and train an embedding of the draft's own. SpecForge's code of P-EAGLE reads the rope's base alone, and
to a full vocabulary it adds maps that map nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import eagle3, examples, nemo, peagle
from spec_convert.plugins.families.aux_layers import KEY
from spec_convert.rules import found

SPECFORGE = "PEagleDraftModel"
VLLM = frozenset({
    "LlamaForCausalLM", "LlamaForCausalLMEagle3", "Eagle3LlamaForCausalLM", "PeagleLlamaForCausalLM",
    "Eagle3Qwen3ForCausalLM", "PeagleQwen3ForCausalLM",
})  # fmt: skip
MASK_TOKEN = "mask_token_id"
SPELLINGS = (MASK_TOKEN, "pard_token", "ptd_token_id")
NESTED = "dflash_config"  # where vLLM and SpecForge look for `mask_token_id` first
ALWAYS_SAVED = (examples.EMBEDDING, nemo.HEAD)

TABLES = eagle3.TABLES | {"the state behind a mask": peagle.MASK, "norm before fc": eagle3.NORM_BEFORE_FC}


def recognise(checkpoint: Checkpoint) -> Evidence:
    architecture = checkpoint.architecture
    return weigh(
        required=eagle3.begins_like_eagle3(nemo.flat(checkpoint))
        | {
            "a state that stands behind masks (`mask_hidden`)": "mask_hidden" in checkpoint,
            f"the architecture {SPECFORGE}, {nemo.ARCHITECTURE} or one of vLLM's": (
                architecture in VLLM | {SPECFORGE} or _is_nemos(checkpoint)
            ),
        },
    )


def _is_nemos(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture == nemo.ARCHITECTURE or nemo.is_nested(checkpoint)


def features(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return eagle3.features(nemo.flat(checkpoint))


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    facts = _facts(checkpoint)
    if _is_nemos(checkpoint):
        return nemo.layout(checkpoint, facts, lambda flat: _with_its_own_tables(peagle.layout(flat, facts, facts)))
    made = peagle.layout(checkpoint, facts, facts)
    return _with_its_own_tables(made) if checkpoint.architecture == SPECFORGE else made


def _with_its_own_tables(made: Layout) -> Layout:
    """The embedding is trained as well: that of the verifier is another, at the mask token for one."""
    return replace(made, table=eagle3.always(made.table, *ALWAYS_SAVED))


def _facts(checkpoint: Checkpoint) -> Facts:
    """config.json as its own reader sees it, with the mask token in the unified spelling."""
    facts = nemo.facts_of(checkpoint) if _is_nemos(checkpoint) else Facts.of(checkpoint)
    nested = facts.part(NESTED) if facts.get(NESTED) else Facts({})
    said = {f"{NESTED}.{MASK_TOKEN}": nested.get(MASK_TOKEN)} | {key: facts.get(key) for key in SPELLINGS}
    given = {key: token for key, token in said.items() if token is not None}
    first = next(iter(given.values()), None)
    if any(token != first for token in given.values()):
        message = f"names several mask tokens: {', '.join(f'{key} {token!r}' for key, token in given.items())}"
        hint = "keep the one that the training used"
        raise Refused([found("config-contradicts-itself", where=facts.where, message=message, hint=hint)])
    return replace(facts, values={**facts.values, MASK_TOKEN: first})


def describe(draft: Draft) -> Described:
    checkpoint, facts = draft.checkpoint, _facts(draft.checkpoint)
    if _is_nemos(checkpoint):
        return peagle.describe(draft, facts, facts, "output", residual=False)
    if checkpoint.architecture != SPECFORGE:
        return peagle.describe(draft, facts, facts, "boundary")
    described = peagle.describe(draft, facts, facts, "output")
    return replace(described, findings=(*described.findings, *_scaled_by_nobody(described, facts)))


def _scaled_by_nobody(described: Described, facts: Facts) -> list[Finding]:
    layer = (described.config or {}).get("transformer_layer_config", {})
    if layer.get("rope_scaling") is None:
        return []
    message = "scales the rotary frequencies, and SpecForge's code of P-EAGLE takes the base alone"
    hint = "take the scaling out of config.json if that code trained the draft"
    return [found("flag-contradicts-dialect", where=facts.where, message=message, hint=hint)]


def example(sizes: Sizes) -> Example:
    """SpecForge's, with the verifier's whole vocabulary; whoever trained it has added the mask token."""
    vocabulary = sizes.vocabulary
    config = examples.transformers_config(
        sizes,
        architectures=[SPECFORGE],
        draft_vocab_size=vocabulary,
        eagle_config={KEY: examples.output_ids(sizes), "use_aux_hidden_state": True},
        mask_token_id=vocabulary - 1,
        norm_before_residual=False,
    )
    mask = {"mask_hidden": (1, 1, examples.STATES * sizes.hidden)}
    tables = dict.fromkeys(ALWAYS_SAVED, (vocabulary, sizes.hidden))
    shapes = examples.eagle3_shapes(sizes, examples.FIRST_LAYER_AS_LAYER_0) | tables | mask
    return Example(config=config, shapes=shapes, values={"d2t": [0] * vocabulary, "t2d": [True] * vocabulary})


FORMAT = Format(
    name="p-eagle",
    title="P-EAGLE of SpecForge, NeMo Automodel and vLLM",
    reference="https://arxiv.org/abs/2602.01469",
    produces="peagle",
    tables=TABLES | {f"behind `model.`: {name}": nemo.nested(table) for name, table in TABLES.items()},
    recognise=recognise,
    features=features,
    layout=layout,
    describe=describe,
    flags=eagle3.FLAGS,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
