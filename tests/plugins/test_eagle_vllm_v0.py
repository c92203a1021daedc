"""EAGLE-1 in the clothes of vLLM's first engine: the same function as without them, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from spec_convert import convert, detect, load_draft

from ..tiny import Tiny, renamed

Make = Callable[..., Any]
FIRST_NORM = "layers.0.input_layernorm.weight"


@pytest.fixture
def v0(eagle: Make, verifier: Path) -> Make:
    """`v0(skip_prenorm=False)`: what the converters of those days made of an EAGLE-1 draft; keywords go to `model`."""

    def make(*, layers: int = 1, **nested: Any) -> Tiny:
        draft: Tiny = eagle(layers=layers)
        draft.config = {"model_type": "eagle", "model": {**draft.config, **nested}}
        draft.tensors["lm_head.weight"] = load_file(verifier / "model.safetensors")["lm_head.weight"]
        return draft

    return make


def test_it_becomes_what_the_authors_own_checkpoint_becomes(v0: Make, eagle: Make, tmp_path: Path) -> None:
    theirs = v0().convert(validate=True)
    assert theirs.conversion.format == "eagle-vllm-v0"
    plain = eagle()
    plain.folder = tmp_path / "plain"
    ours = plain.convert()
    assert theirs.config == ours.config
    assert theirs.tensors.keys() == ours.tensors.keys()
    assert all(torch.equal(tensor, ours.tensors[name]) for name, tensor in theirs.tensors.items())
    assert "the verifier's head" in theirs.dropped["lm_head.weight"]


@pytest.mark.parametrize("prefix", ["model.", "model.model."])
def test_its_layers_may_be_spelt_as_the_engine_named_them(v0: Make, prefix: str) -> None:
    spelt = v0(layers=2)
    plain = spelt.convert()
    spelt.tensors = {n if n.startswith("fc.") else f"{prefix}{n}": t for n, t in spelt.tensors.items()}
    if prefix == "model.model.":
        spelt.tensors = renamed(spelt.tensors, "model.model.lm_head", "model.lm_head")
    converted = spelt.convert(validate=True)
    assert converted.config == plain.config
    assert converted.tensors.keys() == plain.tensors.keys()


def test_one_tensor_in_two_spellings_is_refused(v0: Make) -> None:
    draft = v0()
    draft.tensors["model.layers.0.mlp.up_proj.weight"] = draft.tensors["layers.0.mlp.up_proj.weight"].clone()
    assert draft.refusal()["two-spellings"].where == "layers.0.mlp.up_proj.weight"


def test_a_unified_directory_with_a_nested_model_is_not_taken_for_one(v0: Make) -> None:
    unified = v0().convert()
    assert isinstance(unified.config["model"], dict)
    assert detect(unified.output).format == "speculators"


def test_a_beginners_mlp_is_not_taken_for_one(mlp: Make) -> None:
    assert detect(mlp().write()).format == "eagle-mlp"


@pytest.mark.parametrize("prefix", ["", "model.model."])
def test_a_first_norm_of_ones_is_the_engines_placeholder(v0: Make, prefix: str) -> None:
    draft = v0()
    draft.tensors[prefix + FIRST_NORM] = torch.ones(16)
    assert "placeholder" in draft.convert(validate=True).dropped[prefix + FIRST_NORM]


@pytest.mark.parametrize("prefix", ["", "model.model."])
def test_any_other_first_norm_is_another_function(v0: Make, prefix: str) -> None:
    draft = v0()
    draft.tensors[prefix + FIRST_NORM] = torch.full((16,), 1.5)
    assert draft.refusal()["refused-tensor"].where == prefix + FIRST_NORM


def test_a_placeholder_in_one_spelling_does_not_excuse_a_norm_in_another(v0: Make) -> None:
    draft = v0()
    draft.tensors |= {FIRST_NORM: torch.ones(16), f"model.{FIRST_NORM}": torch.full((16,), 1.5)}
    assert "refused-tensor" in draft.refusal()


@pytest.mark.parametrize("norm", ["enorm.weight", "hnorm.weight", "norm.weight", "model.norm.weight"])
def test_norms_that_the_engine_could_switch_on_are_refused(v0: Make, norm: str) -> None:
    draft = v0()
    draft.tensors[norm] = torch.ones(16)
    assert draft.refusal()["refused-tensor"].where == norm


@pytest.mark.parametrize(("key", "on"), [("skip_prenorm", False), ("skip_output_norm", False), ("add_para_norm", True)])
def test_a_switch_counts_whatever_the_tensors_are(v0: Make, key: str, on: bool) -> None:
    assert f"`{key}` is {on}" in v0(**{key: on}).refusal()["not-representable"].message
    v0(**{key: not on}).convert()


@pytest.mark.parametrize("where", ["top", "nested", "nowhere"])
def test_the_fusion_bias_counts_wherever_the_config_speaks_of_it(v0: Make, where: str) -> None:
    draft = v0(**{"eagle_fc_bias": True} if where == "nested" else {})
    if where == "top":
        draft.set(eagle_fc_bias=True)
    draft.tensors["fc.bias"] = torch.full((16,), 0.25)
    converted = draft.convert(validate=True)
    assert converted.config["fusion_bias"] is True
    assert torch.equal(converted.tensors["fc.bias"], torch.full((16,), 0.25))


@pytest.mark.parametrize("nested", [True, False])
def test_a_fusion_bias_that_is_promised_and_absent_is_missed(v0: Make, nested: bool) -> None:
    draft = v0(eagle_fc_bias=True) if nested else v0().set(eagle_fc_bias=True)
    assert draft.refusal()["missing-tensor"].where == "fc.bias"


def test_another_head_than_the_verifiers_is_refused(v0: Make) -> None:
    draft = v0()
    draft.tensors["lm_head.weight"] = draft.tensors["lm_head.weight"] + 1
    assert draft.refusal()["refused-tensor"].where == "lm_head.weight"


def test_a_full_head_is_compared_even_beside_a_map_of_tokens(v0: Make) -> None:
    draft = v0()
    draft.tensors["lm_head.weight"] = draft.tensors["lm_head.weight"] + 1
    draft.tensors["token_map"] = torch.arange(0, 32, 4)
    assert "refused-tensor" in draft.refusal()


def test_a_head_in_half_precision_is_still_the_verifiers(v0: Make) -> None:
    draft = v0()
    draft.tensors["lm_head.weight"] = draft.tensors["lm_head.weight"].half()
    assert "refused-tensor" not in draft.convert().findings


def test_a_head_that_cannot_be_compared_is_left_out_aloud(v0: Make, verifier: Path) -> None:
    draft = v0()
    (verifier / "model.safetensors").unlink()
    assert draft.convert().findings["head-not-compared"].level == "warning"


def test_a_map_of_frequent_tokens_is_left_out_with_a_note(v0: Make) -> None:
    draft = v0().set(truncated_vocab_size=8)
    draft.tensors["token_map"] = torch.arange(0, 32, 4)
    draft.tensors["lm_head.weight"] = draft.tensors["lm_head.weight"][::4].contiguous()
    converted = draft.convert(validate=True)
    assert converted.findings["token-map-left-out"].where == "token_map"
    assert converted.findings["head-not-compared"].where == "lm_head.weight"
    assert "frequent tokens" in converted.dropped["token_map"]


def test_biases_of_the_attention_are_kept_in_any_spelling(v0: Make) -> None:
    draft = v0()
    rows = {"q": 24, "k": 12, "v": 12}
    biases = {f"model.layers.0.self_attn.{part}_proj.bias": torch.full((n,), 0.5) for part, n in rows.items()}
    draft.tensors = {n if n.startswith(("fc.", "lm")) else f"model.{n}": t for n, t in draft.tensors.items()} | biases
    assert draft.convert(validate=True).layer["qkv_bias"] is True


def test_without_a_nested_fact_it_is_refused(v0: Make) -> None:
    draft = v0()
    del draft.config["model"]["rms_norm_eps"]
    assert draft.refusal()["config-key-missing"].where == "config.json: model"


def test_the_converted_draft_computes_what_the_authors_computes(v0: Make, eagle: Make, tmp_path: Path) -> None:
    draft = v0()
    converted = draft.convert()
    plain = convert(eagle().write(), tmp_path / "plain", verifier=draft.verifier).output
    ids, states = torch.arange(5)[None], torch.randn(1, 5, 16)
    one, other = (load_draft(folder, verifier=draft.verifier)(ids, states) for folder in (converted.output, plain))
    assert torch.equal(one.logits, other.logits)
