"""DFlash as z-lab publishes it, and as SpecForge, ModelOpt, NeMo and TorchSpec train it: a block guessed in one pass.

The files hold neither embedding nor head: both are the verifier's. What is DFlash's own stands in `dflash_config`, or
at the top level, or in both: the mask token, the block size, and `target_layer_ids`, which count outputs of layers, one
less than the boundary ids of unified configs. Without them the authors' code spreads the layers over the verifier.

TorchSpec spells the fusion `context_proj`, `context_norm` and `final_norm`, keeps a copy of the embedding, says nothing
of block size and activation, and calls `num_target_layers` how many states are fused. Domino, DFlare, DFlash2 and
DSpark are built on DFlash and are other functions.
"""

from __future__ import annotations

from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes, shapes_of
from spec_convert.facts import Facts
from spec_convert.formats import Described, Draft, Format, Layout, Request
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import dflash, examples
from spec_convert.rules import found
from spec_convert.tensor_map import TensorMap

ARCHITECTURE = "DFlashDraftModel"


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=dflash.looks_like_a_block_draft(checkpoint)
        | {"no part of a draft that is built on DFlash": not dflash.is_descendant(checkpoint)},
        supporting={
            f"the architecture {ARCHITECTURE}": checkpoint.architecture == ARCHITECTURE,
            "`dflash_config` or `target_layer_ids` in config.json": any(
                checkpoint.get(key) is not None for key in (dflash.NESTED, dflash.IDS)
            ),
        },
    )


def by_torchspec(checkpoint: Checkpoint) -> bool:
    return "context_proj.weight" in checkpoint


def facts_of(checkpoint: Checkpoint) -> Facts:
    """The config, with the one fact that TorchSpec has in its code alone."""
    config = dflash.published(checkpoint)
    known = {"hidden_act": "silu"} if by_torchspec(checkpoint) else {}
    return Facts({**known, **config.values}, config.where)


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    config = facts_of(checkpoint)
    if config.get("shift_label"):
        message = "`shift_label` is set: the row of the newest token guesses too, which servers do not do of DFlash"
        raise Refused([found("not-representable", where=config.where, message=message)])
    return dflash.layout(checkpoint, config, config)


def describe(draft: Draft) -> Described:
    config = facts_of(draft.checkpoint)
    layers = "target_num_hidden_layers" if by_torchspec(draft.checkpoint) else "num_target_layers"
    return dflash.describe(draft, dflash.as_published(draft, config, sample_from_anchor=False, verifier_layers=layers))


def example(sizes: Sizes) -> Example:
    return Example(config=example_config(sizes), shapes=example_shapes(sizes))


def example_config(sizes: Sizes, **more: Any) -> dict[str, Any]:
    """As z-lab and SpecForge write it: the config of Qwen3, and what is DFlash's own."""
    layers = dflash.spread(sizes.verifier_layers, examples.STATES)
    own = {
        "architectures": [ARCHITECTURE],
        "auto_map": {"AutoModel": "dflash.DFlashDraftModel"},
        "block_size": 8,
        dflash.NESTED: {
            "mask_token_id": sizes.vocabulary - 1,
            dflash.IDS: layers,
        },
        "layer_types": ["full_attention"] * sizes.layers,
        "max_window_layers": sizes.layers,
        "model_type": "qwen3",
        "num_target_layers": sizes.verifier_layers,
        "sliding_window": None,
        "use_sliding_window": False,
    }
    return examples.transformers_config(sizes, **own | more)


def example_shapes(sizes: Sizes, *more: TensorMap, **terms: Any) -> dict[str, tuple[int, ...]]:
    rows = TensorMap(dflash.FUSION, dflash.LAYER.under("layers.{i:int}."), *more)
    return shapes_of(rows, sizes, aux=examples.STATES, target=sizes.hidden, **terms)


FORMAT = Format(
    name="dflash",
    title="DFlash",
    reference="https://github.com/z-lab/dflash (arXiv 2602.06036)",
    produces="dflash",
    tables=dflash.TABLES,
    recognise=recognise,
    features=dflash.features,
    layout=layout,
    describe=describe,
    flags=dflash.FLAGS,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
