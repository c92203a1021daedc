"""The old library's `eagle` directories: renamed, with their layernorms where that library put them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

Make = Callable[..., Any]
NORMS = {
    "embedding_layernorm.weight": "embed_layernorm.weight",
    "transformer.input_layernorm.weight": "layers.0.input_layernorm.weight",
    "pre_lm_head_layernorm.weight": "lm_head_layernorm.weight",
}


def normed(draft: Any) -> Any:
    draft.tensors |= {name: torch.full((16,), 0.5) for name in NORMS}
    return draft.set(layernorms=True)


def test_the_old_names_become_the_unified_ones(old_library: Make) -> None:
    converted = old_library().convert(validate=True)
    assert converted.conversion.format == "speculators-eagle"
    assert {"fc.weight", "layers.0.mlp.up_proj.weight"} <= set(converted.tensors)
    assert not [name for name in converted.tensors if name.startswith(("fusion_fc", "transformer"))]


def test_its_layernorms_stay_behind_the_fusion(old_library: Make) -> None:
    converted = normed(old_library()).convert(validate=True)
    assert converted.config["layernorm_position"] == "after_fusion"
    assert set(NORMS.values()) <= set(converted.tensors)


def test_no_layernorms_drops_them_with_a_warning(old_library: Make) -> None:
    converted = normed(old_library()).convert(layernorms=False)
    assert set(converted.dropped) == set(NORMS)
    assert "flag-contradicts-tensors" in converted.findings


@pytest.mark.parametrize("missing", NORMS)
def test_two_of_the_three_norms_are_refused(old_library: Make, missing: str) -> None:
    draft = normed(old_library())
    del draft.tensors[missing]
    assert draft.refusal()["missing-tensor"].where == missing


def test_layernorms_are_not_made_up_on_request(old_library: Make) -> None:
    assert "flag-without-tensors" in old_library().refusal(layernorms=True)


def test_the_fusion_bias_is_kept(old_library: Make) -> None:
    draft = old_library(fusion_bias=True)
    draft.tensors["fusion_fc.bias"] = torch.ones(16)
    assert "fc.bias" in draft.convert(validate=True).tensors


def test_a_bias_that_the_config_promises_and_the_file_lacks_is_refused(old_library: Make) -> None:
    assert "fusion_bias" in old_library(fusion_bias=True).refusal()["missing-tensor"].message


def test_layernorms_that_the_config_promises_and_the_file_lacks_are_refused(old_library: Make) -> None:
    assert "layernorm" in old_library(layernorms=True).refusal()["missing-tensor"].where
