"""HASS (HArmonizedSS): EAGLE-1's tensors, trained otherwise, told apart by a bias that its own config denies.

`main_hass.py` builds the fusion with `bias=True` whatever `config["bias"]` says. HASS's loader then refuses its own
file and EAGLE's loader drops the bias without a word; it was trained, so it is kept. A HASS file for LLaMA-2, whose
config has no such key, cannot be told from EAGLE-1 and need not be.
"""

from __future__ import annotations

from dataclasses import replace

from spec_convert.checkpoint import Checkpoint
from spec_convert.evidence import Evidence, weigh
from spec_convert.example import Example, Sizes
from spec_convert.formats import Format
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.eagle import EAGLE
from spec_convert.plugins.families import eagle1, examples


def recognise(checkpoint: Checkpoint) -> Evidence:
    return weigh(
        required=eagle1.looks_like_eagle1(checkpoint)
        | {
            "no layernorms around the fusion": not eagle1.has_layernorms(checkpoint),
            'a trained `fc.bias` although config.json says "bias": false': eagle1.bias_contradicts_config(checkpoint),
        },
        supporting={"the frozen copy of the verifier's `embed_tokens`": "embed_tokens.weight" in checkpoint},
    )


def example(sizes: Sizes) -> Example:
    config = examples.authors_config(sizes, rope_theta=500000.0, bias=False)
    return examples.eagle1_example(sizes, config, eagle1.FUSION_BIAS)


HASS = replace(
    EAGLE,
    name="hass",
    title="HASS (harmonised EAGLE)",
    reference="https://github.com/HArmonizedSS/HASS (arXiv 2408.15766)",
    recognise=recognise,
    example=example,
)


@hookimpl
def spec_convert_formats() -> list[Format]:
    return [HASS]
