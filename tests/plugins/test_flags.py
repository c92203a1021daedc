"""Flags of other formats: refused, since they would have no effect."""

from __future__ import annotations

import pytest

FOREIGN = {
    "eagle": {"aux_layer_ids": [2, 4, 5], "norm_before_residual": True},
    "eagle3": {"layernorms": True, "fusion_bias": False},
    "specforge": {"fusion_bias": True},
    "mlp": {"rope_theta": 5.0, "layernorms": False},
    "old_library": {"norm_before_residual": False},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_flag_that_means_nothing_for_a_format_is_refused(request: pytest.FixtureRequest, kind: str) -> None:
    for flag, value in FOREIGN[kind].items():
        refused = request.getfixturevalue(kind)().refusal(**{flag: value})
        assert refused["flag-not-heeded"].where == f"--{flag.replace('_', '-')}"


@pytest.mark.parametrize("kind", ["eagle", "eagle3", "specforge", "old_library"])
def test_every_format_with_attention_takes_a_rope_base(request: pytest.FixtureRequest, kind: str) -> None:
    assert request.getfixturevalue(kind)().convert(rope_theta=77.0).layer["rope_theta"] == 77.0
