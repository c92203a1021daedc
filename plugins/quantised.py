"""Quantised drafts whose packed weights hide which layout they had: compressed-tensors, AWQ, GPTQ, bitsandbytes.

Schemes that keep a weight under its name (FP8) leave the layout to be seen: such a draft is told as what it is, and
refused with its scheme when it is converted. Where packed numbers stand in the place of a weight, this is all that can
be said. No server was seen to serve the unified form of either, so neither is passed through.
"""

from __future__ import annotations

from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.formats import Format, Layout, Request, Unconverted
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.families import examples, llama
from spec_convert.plugins.families.recognised import never
from spec_convert.quantisation import WHAT_TO_DO, marks_of, quantised, scheme_of

UNCONVERTED = Unconverted(
    because="packed numbers stand in the place of its weights, and a unified config has no place for their scales",
    instead=WHAT_TO_DO,
)


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required={
            "scales, or packed numbers in the place of weights": bool(marks_of(checkpoint)),
            llama.NOT_UNIFIED: not llama.is_unified(checkpoint),
        },
        supporting={"the fusion of a draft (`fc`)": "fc" in checkpoint.parts},
    )


def features(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"scheme": scheme_of(checkpoint) or None}


def layout(checkpoint: Checkpoint, request: Request) -> Layout:
    raise Refused([quantised(checkpoint) or UNCONVERTED.finding(checkpoint)])


def example(sizes: Sizes) -> Example:
    """An EAGLE-3 draft in whole numbers of four bits, eight to an int32 in the true files."""
    scheme = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
    config = examples.transformers_config(
        sizes, architectures=["LlamaForCausalLMEagle3"], draft_vocab_size=sizes.vocabulary, quantization_config=scheme
    )
    heads = sizes.heads * sizes.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "fc.weight": (sizes.hidden, 3 * sizes.hidden),
        "midlayer.hidden_norm.weight": (sizes.hidden,),
        "midlayer.self_attn.q_proj.weight_scale": (heads, 1),
        "lm_head.weight": (sizes.vocabulary, sizes.hidden),
    }
    return Example(config=config, shapes=shapes, values={"midlayer.self_attn.q_proj.weight_packed": range(heads)})


FORMAT = Format(
    name="quantised",
    title="Drafts of packed weights",
    reference="https://github.com/vllm-project/compressed-tensors",
    produces="",
    tables={},
    recognise=recognise,
    features=features,
    layout=layout,
    describe=never,
    unconverted=UNCONVERTED,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [FORMAT]
