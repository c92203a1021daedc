"""EAGLE-1 with extra layernorms: they stay where they were trained, all three or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

NORMS = ("embed_layernorm.weight", "hidden_layernorm.weight", "lm_head_layernorm.weight")


@pytest.fixture
def normed(eagle: Callable[..., Any]) -> Any:
    draft = eagle()
    draft.tensors |= {name: torch.full((16,), 0.5) for name in NORMS}
    return draft


def test_all_three_norms_are_kept_and_the_state_is_normed_before_the_fusion(normed: Any) -> None:
    converted = normed.convert(validate=True)
    assert converted.conversion.format == "eagle-layernorms"
    assert converted.config["layernorm_position"] == "before_fusion"
    assert all(torch.equal(converted.tensors[name], torch.full((16,), 0.5)) for name in NORMS)


def test_a_draft_with_layernorms_does_not_pretend_to_be_served_by_a_stock_vllm(normed: Any) -> None:
    converted = normed.convert()
    assert "model_type" not in converted.config
    assert "layernorms" in converted.findings["needs-the-vllm-plugin"].message


def test_the_other_spelling_of_the_embedding_norm_is_read(normed: Any) -> None:
    converted = normed.rename("embed_layernorm.", "post_embedding_layernorm.").convert()
    assert set(NORMS) <= set(converted.tensors)


def test_both_spellings_in_one_file_are_refused(normed: Any) -> None:
    normed.tensors["post_embedding_layernorm.weight"] = torch.ones(16)
    assert "two-spellings" in normed.refusal()


@pytest.mark.parametrize("missing", NORMS)
def test_two_of_the_three_norms_are_refused(normed: Any, missing: str) -> None:
    del normed.tensors[missing]
    assert normed.refusal()["missing-tensor"].where == missing


def test_a_fusion_bias_beside_the_norms_is_kept(normed: Any) -> None:
    normed.tensors["fc.bias"] = torch.ones(16)
    config = normed.convert(validate=True).config
    assert (config["fusion_bias"], config["layernorms"]) == (True, True)


def test_no_layernorms_drops_them_with_a_warning(normed: Any) -> None:
    converted = normed.convert(layernorms=False, validate=True)
    assert converted.dropped == dict.fromkeys(sorted(NORMS), "--no-layernorms")
    assert converted.findings["flag-contradicts-tensors"].level == "warning"
    assert (converted.config["layernorms"], converted.config["layernorm_position"]) == (False, None)
    assert converted.config["model_type"] == "eagle"
