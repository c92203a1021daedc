"""The home-made Qwen3 draft: converted to the same function where one can serve it, and what is lost is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from spec_convert import detect, load_draft

from .. import home_made as spelt
from ..conftest import SIZES as VERIFIERS
from ..tiny import Tiny, random

Make = Callable[..., Tiny]
SIZES = replace(VERIFIERS, hidden=24)
IDS = {"aux_layer_ids": [2, 4, 6]}


@torch.no_grad()
@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_first_step_is_what_the_trainers_code_computes(
    home_made: Make, raw: bool, norm_first: bool, layers: int
) -> None:
    made = home_made(raw=raw, layers=layers, norm_before_residual=norm_first)
    ours = load_draft(made.convert(validate=True, **IDS).output)
    ids, states = torch.randint(32, (2, 9)), torch.randn(2, 9, 48)
    theirs = spelt.first_step(spelt.raw(SIZES, layers=layers, target=16), made.config, ids, states)
    assert torch.allclose(ours(ids, states, fed_back=False).logits, theirs, atol=1e-4)


def test_both_spellings_become_the_same(home_made: Make) -> None:
    one, other = home_made(layers=2).convert(**IDS), home_made(raw=True, layers=2).convert(**IDS)
    assert all(torch.equal(one.tensors[name], tensor) for name, tensor in other.tensors.items())
    assert one.config == other.config


def test_what_the_code_fixes_is_written_and_said(home_made: Make) -> None:
    converted = home_made().convert(**IDS)
    layer = converted.layer
    assert (layer["model_type"], layer["head_dim"]) == ("qwen3", 6)
    assert (layer["rope_theta"], layer["max_position_embeddings"]) == (1e6, 131072)
    assert "`rope_theta` (1000000.0)" in converted.findings["fixed-by-the-trainer"].message


def test_what_a_changed_trainer_fixed_otherwise_can_be_said(home_made: Make) -> None:
    assert home_made().convert(rope_theta=5000.0, **IDS).layer["rope_theta"] == 5000.0
    said = {"rope_theta": 5000.0, "max_position_embeddings": 4096, "hidden_act": "silu"}
    converted = home_made(**said).convert(**IDS)
    assert converted.layer.items() >= said.items()
    assert "fixed-by-the-trainer" not in converted.findings


def test_the_projection_of_the_state_fed_back_is_lost_and_this_is_said(home_made: Make) -> None:
    converted = home_made(layers=2).convert(**IDS)
    assert converted.findings["state-fed-back-differs"].level == "warning"
    assert set(converted.dropped) == {"hidden_state_projection.weight", "layers.1.hidden_norm.weight"}
    assert converted.config["norm_output"] is True  # the code projects the normed state


def test_without_a_projection_there_is_nothing_to_say(home_made: Make) -> None:
    made = home_made()
    del made.tensors["hidden_state_projection.weight"]
    converted = made.convert(**IDS)
    assert converted.conversion.format == "eagle3-qwen3"
    assert "state-fed-back-differs" not in converted.findings


def test_its_layers_may_be_counted_in_two_ways_and_the_user_must_say(home_made: Make) -> None:
    refusal = home_made().refusal()["aux-layer-ids"]
    assert "[1, 3, 5]" in refusal.message
    assert "--aux-layer-ids 1,3,5" in refusal.hint
    assert "--aux-layer-ids 2,4,6" in refusal.hint
    assert home_made().convert(**IDS).config["eagle_aux_hidden_state_layer_ids"] == [2, 4, 6]


def test_without_its_layers_they_are_asked_for(home_made: Make) -> None:
    assert "`target_layers`" in home_made(target_layers=...).refusal()["config-key-missing"].message


def test_the_place_of_the_residual_must_be_said(home_made: Make) -> None:
    made = home_made(norm_before_residual=...)
    assert "norm-before-residual-unknown" in made.refusal(**IDS)
    assert made.convert(norm_before_residual=False, **IDS).config["norm_before_residual"] is False


@pytest.mark.parametrize("missing", ["lm_head", "embed_tokens", "layers.0.qkv_proj", "layers.0.k_norm"])
def test_nothing_is_left_to_the_verifier(home_made: Make, missing: str) -> None:
    made = home_made(raw=True)
    del made.tensors[f"{missing}.weight"]
    assert "missing-tensor" in made.refusal(**IDS)


def test_a_linear_map_in_place_of_attention_is_refused(home_made: Make) -> None:
    made = home_made(raw=True)
    layer = {name: tensor for name, tensor in made.tensors.items() if "qkv" not in name}
    made.tensors = layer | random({"layers.0.self_attn_qkv.weight": (24, 48)})
    assert "a linear map where attention should be" in made.refusal(**IDS)["refused-tensor"].message


def test_fused_rows_of_another_number_are_refused(home_made: Make) -> None:
    made = home_made(raw=True)
    made.tensors["layers.0.qkv_proj.weight"] = torch.ones(50, 48)
    assert "need 48 rows" in made.refusal(**IDS)["wrong-shape"].message


def test_all_of_it_is_cast(home_made: Make) -> None:
    converted = home_made(raw=True).convert(dtype="bfloat16", **IDS)
    assert {tensor.dtype for tensor in converted.tensors.values()} == {torch.bfloat16}


def test_vllms_own_layout_of_the_same_name_is_another_format(home_made: Make) -> None:
    made = home_made(eagle_aux_hidden_state_layer_ids=[2, 4, 6])
    assert detect(made.write()).format == "eagle3-qwen3"
    del made.tensors["hidden_state_projection.weight"]
    assert detect(made.set(target_layers=...).write()).format == "eagle3-vllm"
