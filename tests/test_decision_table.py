"""The census of published layouts: for every row of the decision table a checkpoint, and each has one answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from spec_convert import detect
from spec_convert.errors import Refused
from spec_convert.formats import Request
from spec_convert.plan import make_plan
from spec_convert.registry import registry
from spec_convert.testing import tiny_checkpoint

from .tiny import BUILT_IN, RECOGNISED

# What tells the layouts apart, in the order in which one would ask, and the formats that answer.
ROWS: dict[str, tuple[str, ...]] = {
    "config.json says speculators_model_type": ("speculators",),
    "Medusa heads": ("medusa-heads", "medusa-in-model"),
    "Hydra heads": ("hydra",),
    "an MLP for each token ahead": ("mlp-speculator",),
    "embeddings, mlp and a head": ("eagle-mlp",),
    "a head for later tokens inside its target": ("mtp",),
    "a DFlash with something more": ("dspark", "domino", "dflare", "dflash2"),
    "hidden_norm beside a first layer as wide as the state": ("dflash",),
    "the home-made Qwen3, in both variants": ("eagle3-qwen3",),
    "latent attention with hidden_norm": ("eagle3-mla",),
    "mask_hidden": ("p-eagle",),
    "hidden_norm and a first layer of twice the width": (
        "eagle3", "eagle3-angelslim", "eagle3-modelopt", "eagle3-nemo", "eagle3-research", "eagle3-shared-head",
        "eagle3-specforge", "eagle3-torchspec", "eagle3-vllm", "eagle3-torchtune",
    ),
    "fusion_fc": ("speculators-eagle",),
    "layernorms around the fusion": ("eagle-layernorms",),
    "model_type eagle with a nested model": ("eagle-vllm-v0",),
    "vLLM's own relatives of EAGLE-1": ("eagle-vllm-native", "eagle-minicpm-frspec", "eagle-vision"),
    "EAGLE-1 with real norms in its first layer": ("eagle-nemo", "eagle-modelopt"),
    "fc of twice the width": ("eagle", "hass"),
    "a whole decoder": ("dense-draft", "pard"),
    "packed weights, whatever they are": ("quantised",),
}  # fmt: skip
# Told apart by a sign that also speaks against the neighbour, which halves what it is sure of.
NEIGHBOURS = {"eagle3-modelopt": {"eagle3-specforge"}, "hass": {"eagle"}}
FORMATS = [name for names in ROWS.values() for name in names]


def test_every_format_answers_one_row() -> None:
    assert sorted(FORMATS) == sorted((*BUILT_IN, *RECOGNISED))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", FORMATS)
def test_a_checkpoint_of_the_row_has_this_answer_and_no_other(name: str, layers: int, tmp_path: Path) -> None:
    detection = detect(tiny_checkpoint(name, tmp_path / "draft", layers=layers))
    assert detection.format == name
    assert detection.confidence == 1
    assert detection.to_json()["also_possible"].keys() <= NEIGHBOURS.get(name, set())
    assert detection.findings == []


@pytest.mark.parametrize("name", RECOGNISED)
def test_what_is_not_converted_is_refused_with_the_reason_and_what_to_do(name: str, tmp_path: Path) -> None:
    detection = detect(tiny_checkpoint(name, tmp_path / "draft"))
    why_not = registry()[name].unconverted
    assert why_not is not None
    with pytest.raises(Refused) as refused:
        make_plan(detection, Request()).require_clean()
    rule = "served-as-it-lies" if why_not.served else "not-converted"
    (answer,) = [finding for finding in refused.value.findings if finding.rule in (rule, "weights-quantised")]
    assert answer.message
    assert answer.hint
