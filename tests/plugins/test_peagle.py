"""Unified P-EAGLE directories: read back unchanged, held to what servers read of them, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert import convert, detect
from spec_convert.validation.validation import validate

from ..tiny import Tiny

Make = Callable[..., Tiny]


def rules(draft: Tiny, level: str = "headers") -> dict[str, str]:
    (checked,) = validate(draft.write(), verifier=draft.verifier, level=level).checked
    return {finding.rule: finding.message for finding in checked.findings}


def test_converting_it_again_changes_no_byte(peagle: Make, tmp_path: Any) -> None:
    once = peagle().convert(speculative_tokens=5).output
    twice = convert(once, tmp_path / "twice").output
    for file in ("config.json", "model.safetensors"):
        assert (once / file).read_bytes() == (twice / file).read_bytes(), file


def test_it_keeps_what_it_says(peagle: Make) -> None:
    draft = peagle(norm_before_residual=True)
    written = draft.convert()
    assert written.config == draft.config
    assert all(torch.equal(written.tensors[name], tensor) for name, tensor in draft.tensors.items())


@pytest.mark.parametrize("own", [True, False])
def test_it_is_sound_at_every_level_with_an_embedding_of_its_own_or_without(peagle: Make, own: bool) -> None:
    draft = peagle()
    if not own:
        del draft.tensors["embed_tokens.weight"]
    assert set(rules(draft, "forward")) == ({"embedding-of-its-own"} if own else set())


def test_it_is_detected_as_what_it_is(peagle: Make) -> None:
    found = detect(peagle().write())
    assert (found.format, found.features["speculators_model_type"]) == ("speculators", "peagle")


def test_an_embedding_may_be_left_to_the_verifier(peagle: Make) -> None:
    draft = peagle()
    del draft.tensors["embed_tokens.weight"]
    assert draft.convert(validate=True).config["embed_requires_grad"] is False


def test_without_a_word_the_residual_is_taken_before_the_norm_and_this_is_written(peagle: Make) -> None:
    draft = peagle(norm_before_residual=...)
    assert set(rules(draft)) == {"not-written"}
    assert draft.convert().config["norm_before_residual"] is False


@pytest.mark.parametrize("key", ["fc_norm", "norm_output"])
def test_a_flag_that_nobody_reads_of_this_type_may_be_left_out(peagle: Make, key: str) -> None:
    draft = peagle(**{key: ...})
    assert rules(draft) == {}
    assert draft.convert().config[key] is False


@pytest.mark.parametrize("missing", ["mask_token_id", "mask_hidden"])
def test_without_its_mask_it_is_refused(peagle: Make, missing: str) -> None:
    draft = peagle()
    draft.config.pop(missing, None)
    draft.tensors.pop(missing, None)
    rule = {"mask_token_id": "config-key-missing", "mask_hidden": "missing-tensor"}[missing]
    assert rule in draft.refusal()
    assert rule in rules(draft)


def test_a_mask_of_another_width_is_refused(peagle: Make) -> None:
    draft = peagle()
    draft.tensors["mask_hidden"] = torch.ones(1, 1, 32)
    assert "wrong-shape" in draft.refusal()


def test_a_mask_token_that_the_verifier_does_not_know_is_refused(peagle: Make) -> None:
    assert "mask_token_id 32 is not in the vocabulary" in peagle(mask_token_id=32).refusal()["config-invalid"].message


def test_norms_per_state_are_refused_because_servers_leave_them_out(peagle: Make) -> None:
    draft = peagle(fc_norm=True)
    draft.tensors |= {f"fc_norm.{number}.weight": torch.ones(16) for number in range(3)}
    assert "servers build no norms per state" in draft.refusal()["refused-tensor"].message


def test_a_norm_before_fc_is_kept(peagle: Make) -> None:
    draft = peagle(norm_before_fc=True)
    draft.tensors["input_norm.weight"] = torch.linspace(0.5, 2, 48)
    assert rules(draft) == {}
    assert draft.convert(validate=True).config["norm_before_fc"] is True


def test_layer_ids_that_are_left_out_are_asked_for(peagle: Make) -> None:
    assert "aux-layer-ids-not-written" in rules(peagle(eagle_aux_hidden_state_layer_ids=...))


def test_four_states_need_their_number_in_the_layers(peagle: Make) -> None:
    draft = peagle()
    draft.config["transformer_layer_config"] |= {"num_aux_hidden_states": 4}
    assert "aux-count" in rules(draft)
