"""DSpark as DeepSeek and NeMo publish it (`Qwen3DSparkModel`), SpecForge (`DSparkDraftModel`) and ModelOpt export it.

DFlash's layers, and a head that adds a bias from the token before to each guess. The row of the newest token guesses
too, so a block of seven rows is seven tokens: all of these trainers shift the labels so. NeMo keeps everything at the
top level of config.json and copies of the verifier's embedding and head in the file; SpecForge nests it in
`dflash_config`; ModelOpt nests it too, says `DFlashDraftModel`, and has its heads at the root of the file.

The same name is given to drafts of Gemma-4, Kimi, GLM and DeepSeek layers, which vLLM serves in their own layout alone.
"""

from __future__ import annotations

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.facts import Facts
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.dflash import ARCHITECTURE as DFLASH
from spec_convert.plugins.dflash import example_config, example_shapes
from spec_convert.plugins.families import dflash, dspark, examples, llama
from spec_convert.rules import found

NEMO, SPECFORGE = "Qwen3DSparkModel", "DSparkDraftModel"
KNOWN = (NEMO, SPECFORGE, DFLASH)
RANK = 4  # of the example


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required={
            "a Markov head (`markov_w1`)": dspark.has_markov_head(checkpoint),
            llama.NOT_UNIFIED: not llama.is_unified(checkpoint),
        },
        supporting={f"the architecture {', '.join(KNOWN)}": checkpoint.architecture in KNOWN},
    )


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    if checkpoint.architecture not in KNOWN:
        message = f"{checkpoint.architecture or 'a draft without an architecture'} has layers that no unified draft has"
        hint = f"the layers of {' and '.join(KNOWN)} are Qwen3's; vLLM serves some others as they are published"
        raise Refused([found("not-representable", where="config.json", message=message, hint=hint)])
    config = dflash.published(checkpoint)
    return dspark.layout(checkpoint, config, config)


def describe(draft: Draft) -> Described:
    config = dflash.published(draft.checkpoint)
    anchored = _samples_from_anchor(config)
    reading = dflash.as_published(draft, config, sample_from_anchor=anchored, verifier_layers="num_target_layers")
    return dspark.describe(draft, reading)


def _samples_from_anchor(config: Facts) -> bool:
    """ModelOpt says whether the labels were shifted; the others always shift them."""
    for key in ("sample_from_anchor", "shift_label"):
        if config.has(key):
            return bool(config.require({key: bool})[key])
    return True


def example(sizes: Sizes) -> Example:
    """As SpecForge writes it."""
    own = {
        "mask_token_id": sizes.vocabulary - 1,
        dflash.IDS: dflash.spread(sizes.verifier_layers, examples.STATES),
        "attention_mode": "gqa",
        "confidence_head_alpha": 1.0,
        "confidence_head_with_markov": True,
        "enable_confidence_head": True,
        "markov_head_type": "vanilla",
        "markov_rank": RANK,
        "projector_type": "dspark",
    }
    config = example_config(sizes, architectures=[SPECFORGE], block_size=7, dflash_config=own)
    heads = (dspark.MARKOV.under("markov_head."), dspark.CONFIDENCE.under("confidence_head."))
    full = {"draft_vocabulary": sizes.vocabulary}
    shapes = example_shapes(sizes, *heads, rank=RANK, confidence=sizes.hidden + RANK, **full)
    return Example(config=config, shapes=shapes)


FORMAT = Format(
    name="dspark",
    title="DSpark",
    reference="https://github.com/deepseek-ai/DeepSpec (arXiv 2607.05147)",
    produces="dspark",
    tables=dspark.TABLES,
    recognise=recognise,
    features=dspark.features,
    layout=layout,
    describe=describe,
    flags=dflash.FLAGS,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
