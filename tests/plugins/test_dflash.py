"""DFlash in each of its layouts, and unified DFlash directories: converted, read back unchanged, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert import convert, detect
from spec_convert.open import open_checkpoint
from spec_convert.plugins.dflash import recognise
from spec_convert.validation.validation import validate

from ..conftest import SIZES
from ..tiny import Tiny, random

Make = Callable[..., Tiny]
IDS = "target_layer_ids"


def unified(draft: Tiny) -> Tiny:
    once = draft.convert()
    draft.config, draft.tensors = once.config, once.tensors
    return draft


def nested(draft: Tiny, **changes: Any) -> Tiny:
    kept = {key: value for key, value in (draft.config["dflash_config"] | changes).items() if value is not ...}
    return draft.set(dflash_config=kept)


def rules(draft: Tiny, level: str = "headers") -> dict[str, str]:
    (checked,) = validate(draft.write(), verifier=draft.verifier, level=level).checked
    return {finding.rule: finding.message for finding in checked.findings}


def torchspec(draft: Tiny) -> Tiny:
    """The same draft as TorchSpec writes it: its own names, a copy of the embedding, a flat config."""
    for old, new in {"fc.": "context_proj.", "hidden_norm.": "context_norm.", "norm.": "final_norm."}.items():
        draft.rename(old, new)
    draft.tensors |= SIZES.embedding()
    own = draft.config["dflash_config"]
    absent = ("dflash_config", "hidden_act", "block_size", "head_dim", "layer_types")
    return draft.set(
        model_type="dflash", num_target_layers=3, target_num_hidden_layers=8, target_hidden_size=SIZES.hidden,
        **own, **dict.fromkeys(absent, ...),
    )  # fmt: skip


def test_layer_ids_count_outputs(dflash: Make) -> None:
    assert nested(dflash(), **{IDS: [0, 3, 7]}).convert().config["aux_hidden_state_layer_ids"] == [1, 4, 8]


@pytest.mark.parametrize(("states", "ids"), [(1, [5]), (2, [2, 6]), (3, [2, 4, 6]), (5, [2, 3, 4, 5, 6])])
def test_ids_that_are_left_out_are_the_authors(dflash: Make, states: int, ids: list[int]) -> None:
    """[4], [1, 5], [1, 3, 5] and [1, 2, 3, 4, 5] in z-lab's own code, of eight layers."""
    draft = nested(dflash(states=states), **{IDS: ...})
    assert draft.convert().config["aux_hidden_state_layer_ids"] == ids


def test_without_the_verifiers_layers_they_come_from_the_verifier(dflash: Make) -> None:
    draft = nested(dflash(num_target_layers=...), **{IDS: ...})
    assert draft.convert().config["aux_hidden_state_layer_ids"] == [2, 4, 6]
    (checked,) = validate(draft.write()).checked
    assert "aux-layer-ids-need-verifier" in {finding.rule for finding in checked.findings}


def test_ids_by_flag_are_boundary_ids(dflash: Make) -> None:
    assert dflash().convert(aux_layer_ids=[1, 2, 3]).config["aux_hidden_state_layer_ids"] == [1, 2, 3]


@pytest.mark.parametrize("ids", [[1, 3], [4, 3, 1], [1, 3, 8], "1,3,4", [], [1, 3, True]])
def test_ids_that_cannot_be_meant_are_refused(dflash: Make, ids: Any) -> None:
    assert {"aux-layer-ids", "config-key-invalid"} & nested(dflash(), **{IDS: ids}).refusal().keys()


def test_the_block_size_may_stand_in_dflash_config(dflash: Make) -> None:
    written = nested(dflash(block_size=...), block_size=16).convert().config
    assert written["block_size"] == 16
    assert written["speculators_config"]["proposal_methods"][0]["speculative_tokens"] == 15


def test_a_fact_that_stands_in_two_places_must_be_one(dflash: Make) -> None:
    draft = nested(dflash(block_size=8), block_size=8)
    assert draft.convert().config["block_size"] == 8
    assert "`block_size`" in nested(draft, block_size=16).refusal()["config-contradicts-itself"].message


def test_without_a_block_size_the_number_of_tokens_must_be_given(dflash: Make) -> None:
    draft = dflash(block_size=...)
    assert "--speculative-tokens" in draft.refusal()["config-key-missing"].hint
    assert draft.convert(speculative_tokens=5).config["block_size"] == 6


def test_the_mask_token_must_be_said(dflash: Make) -> None:
    assert "mask_token_id" in nested(dflash(), mask_token_id=...).refusal()["config-key-missing"].message
    assert "not in the vocabulary" in nested(dflash(), mask_token_id=32).refusal()["config-invalid"].message


def test_torchspecs_names_and_config(dflash: Make) -> None:
    draft = dflash(layers=2)
    plain = draft.convert(speculative_tokens=7)
    torchspec(draft)
    assert detect(draft.write()).format == "dflash"
    written = draft.convert(speculative_tokens=7, validate=True)
    assert written.config == plain.config
    assert all(torch.equal(written.tensors[name], tensor) for name, tensor in plain.tensors.items())
    assert "embed_tokens.weight" in written.tensors


def test_both_spellings_at_once_are_refused(dflash: Make) -> None:
    draft = dflash()
    draft.tensors["final_norm.weight"] = torch.ones(16)
    assert "two-spellings" in draft.refusal()


@pytest.mark.parametrize("missing", ["self_attn.o_proj.bias", "self_attn.q_proj.bias"])
def test_biases_of_the_attention_are_kept_whole(dflash: Make, missing: str) -> None:
    draft = dflash(attention_bias=True)
    draft.tensors |= SIZES.qkv_bias("layers.0.") | random({"layers.0.self_attn.o_proj.bias": (SIZES.hidden,)})
    assert draft.convert(validate=True).layer["attention_bias"] is True
    del draft.tensors[f"layers.0.{missing}"]
    assert "missing-tensor" in draft.refusal()


def test_a_bias_of_the_fusion_is_refused(dflash: Make) -> None:
    draft = dflash()
    draft.tensors["fc.bias"] = torch.ones(16)
    assert "servers have no such bias" in draft.refusal()["refused-tensor"].message


def test_norms_of_queries_and_keys_are_part_of_it(dflash: Make) -> None:
    draft = dflash()
    del draft.tensors["layers.0.self_attn.q_norm.weight"]
    assert "missing-tensor" in draft.refusal()


def test_a_vocabulary_of_its_own(dflash: Make) -> None:
    draft = dflash(draft_vocab_size=20)
    assert "d2t-missing" in draft.refusal()
    draft.tensors |= SIZES.reduced_head(range(4, 24))
    assert draft.convert(validate=True).config["draft_vocab_size"] == 20


@pytest.mark.parametrize(
    "said", [{"attention_sink_bias": True}, {"attention_value_scale": 0.5}, {"use_aux_hidden_state": False}], ids=str
)
def test_what_vllm_knows_of_the_layout_and_no_unified_config_says_is_refused(dflash: Make, said: Any) -> None:
    assert next(iter(said)) in nested(dflash(), **said).refusal()["not-representable"].message


def test_guesses_from_the_newest_token_are_refused(dflash: Make) -> None:
    assert "shift_label" in nested(dflash(), shift_label=True).refusal()["not-representable"].message
    draft = unified(dflash())
    assert "sample_from_anchor" in draft.set(sample_from_anchor=True).refusal()["not-representable"].message


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("prefix_gru.weight_ih_l0", ""), ("embed_proj.0.weight", ""), ("layers.0.self_attn.k_proj_target.weight", ""),
        ("layer_fusion_weights", ""), ("candidate_selector.hidden_projection.weight", ""),
        ("layers.0.attention_conv.kernel_projection.weight", ""), ("markov_head.markov_w1.weight", ""),
        ("", "selector_rank"), ("", "conv_kernel_size"), ("", "projector_type"),
    ],
)  # fmt: skip
def test_drafts_that_are_built_on_it_are_not_taken_for_it(dflash: Make, name: str, key: str) -> None:
    draft = dflash()
    draft.tensors |= random({name: (4, 16)}) if name else {}
    draft = nested(draft, **{key: 4}) if key else draft
    assert not recognise(open_checkpoint(draft.write())).confidence


def test_converting_it_again_changes_no_byte(dflash: Make, tmp_path: Path) -> None:
    once = dflash(layers=2).convert(speculative_tokens=5).output
    twice = convert(once, tmp_path / "twice").output
    for file in ("config.json", "model.safetensors"):
        assert (once / file).read_bytes() == (twice / file).read_bytes(), file


def test_a_unified_one_is_sound_at_every_level(dflash: Make) -> None:
    assert rules(unified(dflash(layers=2)), "forward") == {}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"sliding_window_non_causal": False}, "read-otherwise"),
        ({"sliding_window_non_causal": ...}, "not-written"),
        ({"sample_from_anchor": ...}, "not-written"),
        ({"draft_vocab_size": ...}, "not-written"),
        ({"aux_hidden_state_layer_ids": ...}, "config-key-missing"),
        ({"mask_token_id": ...}, "config-key-missing"),
    ],
    ids=str,
)
def test_what_servers_would_guess_of_it(dflash: Make, change: dict[str, Any], rule: str) -> None:
    assert set(rules(unified(dflash()).set(**change))) == {rule}


@pytest.mark.parametrize(
    ("key", "value"), [("is_causal", False), ("dflash_config", {"a": 1}), ("is_neox_style", False)]
)
def test_keys_of_the_layers_that_vllm_obeys(dflash: Make, key: str, value: Any) -> None:
    draft = unified(dflash())
    draft.config["transformer_layer_config"][key] = value
    assert f"`{key}`" in rules(draft)["obeyed-by-servers"]
