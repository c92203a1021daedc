"""EAGLE-3 of speculators' research trainer: as it saves it, and as its converter writes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert import detect

from ..conftest import SIZES

Make = Callable[..., Any]
KEY = "eagle_aux_hidden_state_layer_ids"
IDS = {"aux_layer_ids": [3, 5, 6]}
AT_THE_ROOT = {
    "layers.0.hidden_norm.weight": "hidden_norm.weight",
    "layers.0.input_layernorm.weight": "input_layernorm.weight",
    "norm.weight": "lm_head_layernorm.weight",
}


@pytest.fixture
def as_trained(eagle3: Make) -> Make:
    """Norms at the root, the whole vocabulary, no map."""

    def make(*, layers: int = 1, **changes: Any) -> Any:
        draft = eagle3(draft_vocab_size=..., **changes)
        draft.tensors = SIZES.research(layers)
        return draft

    return make


def test_norms_at_the_root_go_where_servers_read_them(as_trained: Make) -> None:
    draft = as_trained()
    converted = draft.convert(**IDS, validate=True)
    assert converted.conversion.format == "eagle3-research"
    for target, name in AT_THE_ROOT.items():
        assert torch.equal(converted.tensors[target], draft.tensors[name])


def test_as_trained_the_residual_is_known_and_the_ids_are_not(as_trained: Make) -> None:
    draft = as_trained()
    hint = draft.refusal()["aux-layer-ids-unknown"].hint
    assert "here `--aux-layer-ids 3,5,6`" in hint
    converted = draft.convert(**IDS)
    assert converted.config["norm_before_residual"] is True
    assert converted.config[KEY] == [3, 5, 6]


def test_a_convention_does_not_tell_ids_that_are_not_there(as_trained: Make) -> None:
    assert "aux-layer-ids-unknown" in as_trained().refusal(aux_layer_convention="output")


def test_ids_in_its_config_count_inputs(as_trained: Make) -> None:
    assert as_trained(**{KEY: [1, 5, 6]}).convert().config[KEY] == [1, 5, 6]


def test_a_residual_that_contradicts_the_trainer_is_refused(as_trained: Make) -> None:
    assert "flag-contradicts-dialect" in as_trained(norm_before_residual=False).refusal(**IDS)


def test_several_layers_are_kept(as_trained: Make) -> None:
    assert as_trained(layers=2).convert(**IDS, validate=True).layer["num_hidden_layers"] == 2


def test_a_reduced_head_without_its_map_is_refused(as_trained: Make) -> None:
    draft = as_trained()
    draft.tensors["lm_head.weight"] = torch.ones(20, 16)
    assert "d2t-missing" in draft.refusal(**IDS)


def test_a_fusion_bias_is_refused(as_trained: Make) -> None:
    draft = as_trained()
    draft.tensors["fc.bias"] = torch.ones(16)
    assert draft.refusal(**IDS)["refused-tensor"].where == "fc.bias"


def test_its_files_are_pickles_by_another_name(as_trained: Make, tmp_path: Path) -> None:
    draft = as_trained()
    file = tmp_path / "run" / "model3.safetensors"
    draft.write().rename(file.parent)
    (file.parent / "model.safetensors").unlink()
    torch.save(draft.tensors, file)
    found = detect(file)
    assert (found.format, found.checkpoint.container) == ("eagle3-research", "torch-zip")


def test_as_converted_nothing_tells_who_trained_it(eagle3: Make) -> None:
    draft = eagle3(prefix="layers.0.")
    assert "norm-before-residual-unknown" in draft.refusal()
    authors = draft.convert(norm_before_residual=False)
    assert (authors.conversion.format, authors.config[KEY]) == ("eagle3-research", [2, 4, 5])
    assert "aux-layer-ids-unknown" in draft.refusal(norm_before_residual=True)
    assert draft.convert(norm_before_residual=True, **IDS).config[KEY] == [3, 5, 6]
