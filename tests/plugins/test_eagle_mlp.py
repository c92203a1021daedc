"""The beginner's MLP draft: as many linears as config.json says, each followed by its norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

Make = Callable[..., Any]


def test_it_is_recognised_although_its_config_says_eagle(mlp: Make) -> None:
    converted = mlp().convert(validate=True)
    assert converted.conversion.format == "eagle-mlp"
    assert converted.config["mlp_layers"] == 2
    assert "needs-the-vllm-plugin" in converted.findings


@pytest.mark.parametrize("said", [1, 3, 10**9])
def test_another_number_of_layers_in_the_config_is_refused(mlp: Make, said: int) -> None:
    assert f"mlp_layers {said}" in mlp(mlp_layers=said).refusal()["config-key-invalid"].message


@pytest.mark.parametrize("missing", ["mlp.0.bias", "mlp.3.bias", "mlp.5.bias"])
def test_a_missing_tensor_is_refused(mlp: Make, missing: str) -> None:
    draft = mlp()
    del draft.tensors[missing]
    assert draft.refusal()["missing-tensor"].where == missing


def test_without_a_head_it_is_no_known_format(mlp: Make) -> None:
    draft = mlp()
    del draft.tensors["lm_head.weight"]
    assert "not: a head of its own" in draft.refusal()["unknown-format"].message


def test_a_tensor_between_the_layers_is_refused(mlp: Make) -> None:
    draft = mlp()
    draft.tensors["mlp.1.weight"] = torch.ones(16)
    assert "mlp.1.weight" in str(draft.refusal())


def test_a_verifier_of_another_width_is_refused(mlp: Make, make_verifier: Make) -> None:
    assert "hidden_size" in mlp().refusal(verifier=make_verifier("wide", hidden_size=24))["verifier-mismatch"].message


def test_a_unified_directory_keeps_the_epsilon_that_it_says(mlp: Make) -> None:
    draft = mlp()
    converted = draft.convert()
    assert converted.config["layer_norm_eps"] == 1e-5
    draft.config, draft.tensors = converted.config | {"layer_norm_eps": 1e-3}, converted.tensors
    assert draft.convert().config["layer_norm_eps"] == 1e-3
