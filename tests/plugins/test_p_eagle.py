"""P-EAGLE as SpecForge, NeMo Automodel and vLLM spell it: one unified type, and one mask token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert import detect

from ..conftest import SIZES
from ..tiny import Tiny, behind_model, random

Make = Callable[..., Tiny]
KEY = "eagle_aux_hidden_state_layer_ids"


@pytest.fixture
def draft(eagle3: Make) -> Make:
    """Two layers with an embedding of its own; keywords change config.json."""

    def make(**changes: Any) -> Tiny:
        made = eagle3(prefix="layers.0.", layers=2, num_hidden_layers=2, **changes)
        made.tensors |= SIZES.embedding() | random({"mask_hidden": (1, 1, 3 * SIZES.hidden)})
        return made

    return make


@pytest.fixture
def specforge(draft: Make) -> Make:
    said = {"architectures": ["PEagleDraftModel"], "mask_token_id": 3, "norm_before_residual": False}
    return lambda **changes: draft(**said | changes)


@pytest.fixture
def nemo(draft: Make) -> Make:
    """Of a verifier with sliding windows."""

    def make(**changes: Any) -> Tiny:
        said = {"architectures": ["LlamaEagle3DraftModel"], "parallel_drafting": True, "mask_token_id": 3}
        made = draft(**said | {"model_type": "qwen3", "num_depths": 8, "layer_types": ["sliding_attention"]} | changes)
        made.tensors = behind_model(made.tensors)
        return made

    return make


@pytest.fixture
def native(draft: Make) -> Make:
    said = {"architectures": ["LlamaForCausalLMEagle3"], "parallel_drafting": True, "pard_token": 3}
    return lambda **changes: draft(**said | changes)


@pytest.fixture(params=["specforge", "nemo", "native"])
def any_of_them(request: pytest.FixtureRequest) -> Make:
    make: Make = request.getfixturevalue(request.param)
    return make


def test_each_becomes_the_same_peagle(any_of_them: Make) -> None:
    made = any_of_them()
    written = made.convert(validate=True)
    assert written.conversion.format == "p-eagle"
    assert (written.config["speculators_model_type"], written.config["mask_token_id"]) == ("peagle", 3)
    assert written.config[KEY] == [2, 4, 5]
    assert (written.layer["model_type"], written.layer["num_hidden_layers"]) == ("llama", 2)
    assert written.config["embed_requires_grad"] is True
    assert all(torch.equal(written.tensors[name.removeprefix("model.")], t) for name, t in made.tensors.items())


@pytest.mark.parametrize("where", ["mask_token_id", "pard_token", "ptd_token_id"])
def test_the_mask_token_is_read_where_servers_read_it(native: Make, where: str) -> None:
    assert native(**{"pard_token": ..., where: 5}).convert().config["mask_token_id"] == 5


def test_it_may_stand_where_dflash_drafts_have_it(specforge: Make) -> None:
    made = specforge(mask_token_id=..., dflash_config={"mask_token_id": 5})
    assert made.convert().config["mask_token_id"] == 5


def test_two_mask_tokens_are_refused(native: Make) -> None:
    refusal = native(mask_token_id=4).refusal()["config-contradicts-itself"]
    assert "mask_token_id 4, pard_token 3" in refusal.message


def test_what_specforge_writes_nowhere_must_be_added(specforge: Make) -> None:
    assert "`mask_token_id`" in specforge(mask_token_id=...).refusal()["config-key-missing"].message


def test_a_mask_token_as_text_is_refused(native: Make) -> None:
    assert "'3'" in native(pard_token="3").refusal()["config-key-invalid"].message


@pytest.mark.parametrize(("source", "ids"), [("specforge", [2, 5, 7]), ("nemo", [2, 5, 7])])
def test_trainers_count_outputs(source: str, ids: list[int], request: pytest.FixtureRequest) -> None:
    made = request.getfixturevalue(source)(eagle_config={KEY: [1, 4, 6]})
    assert made.convert().config[KEY] == ids


def test_vllm_counts_inputs(native: Make) -> None:
    assert native(**{KEY: [1, 4, 6]}).convert().config[KEY] == [1, 4, 6]


def test_a_full_vocabulary_that_specforge_maps_to_nothing_loses_its_maps(specforge: Make) -> None:
    made = specforge(draft_vocab_size=32)
    made.tensors |= {"lm_head.weight": torch.randn(32, 16), "d2t": torch.zeros(32, dtype=torch.int64)}
    made.tensors["t2d"] = torch.ones(32, dtype=torch.bool)
    converted = made.convert(validate=True)
    assert set(converted.dropped) == {"d2t", "t2d"}
    assert converted.config["draft_vocab_size"] == 32


def test_maps_that_were_never_filled_are_refused(specforge: Make) -> None:
    made = specforge()
    made.tensors |= {"d2t": torch.zeros(20, dtype=torch.int64), "t2d": torch.ones(32, dtype=torch.bool)}
    assert "d2t-inconsistent" in made.refusal()


@pytest.mark.parametrize("source", ["specforge", "nemo"])
def test_an_embedding_that_was_trained_is_not_the_verifiers(source: str, request: pytest.FixtureRequest) -> None:
    made = request.getfixturevalue(source)()
    name = "model.embed_tokens.weight" if source == "nemo" else "embed_tokens.weight"
    del made.tensors[name]
    assert made.refusal()["missing-tensor"].where == name


def test_vllms_may_leave_it_to_the_verifier(native: Make) -> None:
    made = native()
    del made.tensors["embed_tokens.weight"]
    assert made.convert(validate=True).config["embed_requires_grad"] is False


@pytest.mark.parametrize("source", ["specforge", "native"])
def test_the_residual_is_where_it_is_said_to_be(source: str, request: pytest.FixtureRequest) -> None:
    assert request.getfixturevalue(source)(norm_before_residual=True).convert().config["norm_before_residual"] is True


def test_nemos_code_never_takes_it_after_the_norm(nemo: Make) -> None:
    assert "flag-contradicts-dialect" in nemo(norm_before_residual=True).refusal()


def test_a_scaling_that_specforges_code_does_not_read_is_refused(specforge: Make) -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    assert "takes the base alone" in specforge(rope_scaling=scaling).refusal()["flag-contradicts-dialect"].message


def test_norms_per_state_have_no_place_in_a_server(nemo: Make) -> None:
    made = nemo(fc_norm=True)
    made.tensors |= {f"model.fc_norm.{number}.weight": torch.ones(16) for number in range(3)}
    assert "servers build no norms per state" in made.refusal()["refused-tensor"].message


def test_without_the_map_of_a_reduced_vocabulary_it_is_refused(nemo: Make) -> None:
    made = nemo()
    del made.tensors["d2t"], made.tensors["t2d"]
    assert "eagle_meta.pt" in made.refusal()["d2t-missing"].message


def test_qwen3_layers_of_vllms_class_keep_their_norms(native: Make) -> None:
    made = native(architectures=["PeagleQwen3ForCausalLM"])
    norms = {f"layers.{number}.self_attn.{norm}.weight": (6,) for number in (0, 1) for norm in ("q_norm", "k_norm")}
    made.tensors |= random(norms)
    assert made.convert(validate=True).layer["model_type"] == "qwen3"


def test_an_architecture_that_nobody_knows_is_refused_with_the_nearest(native: Make) -> None:
    assert "the nearest is `p-eagle`" in native(architectures=["Other"]).refusal()["unknown-format"].message


def test_without_a_mask_it_is_eagle3(nemo: Make, specforge: Make) -> None:
    made = nemo(parallel_drafting=False)
    del made.tensors["mask_hidden"]
    assert detect(made.write()).format == "eagle3-nemo"
