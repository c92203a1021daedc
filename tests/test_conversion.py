"""`convert` as a whole: what it reports, what it records, what it leaves on disk, and verifiers that do not fit."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert import EagleConverter, convert, load_draft
from spec_convert.errors import Refused, Unreadable, UsageError

Make = Callable[..., Any]
FILES = ["config.json", "conversion.json", "model.safetensors"]


@pytest.fixture
def biased(eagle: Make) -> Any:
    draft = eagle()
    draft.tensors["fc.bias"] = torch.ones(16)
    draft.tensors["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    return draft


def test_the_report_is_what_scripts_rely_on(biased: Any) -> None:
    converted = biased.convert(fusion_bias=False)
    report = json.loads(json.dumps(converted.conversion.to_json()))
    assert report["output"] == str(converted.output)
    assert report["format"] == "eagle"
    assert set(report["tensors"]["dropped"]) == {"fc.bias", "layers.0.self_attn.rotary_emb.inv_freq"}
    assert [finding["rule"] for finding in report["findings"]] == ["flag-contradicts-tensors"]
    assert report["seconds"] >= 0
    assert report["written"] is True


def test_every_moved_tensor_is_reported_with_its_source_and_operation(eagle3: Make) -> None:
    moved = {one["target"]: one for one in eagle3().convert(dtype="bfloat16").conversion.to_json()["tensors"]["moved"]}
    assert moved["layers.0.hidden_norm.weight"] == {
        "target": "layers.0.hidden_norm.weight", "sources": ["midlayer.hidden_norm.weight"],
        "operation": "cast F32 to BF16", "dtype": "BF16", "shape": [16],
    }  # fmt: skip
    assert (moved["d2t"]["operation"], moved["d2t"]["dtype"]) == ("copy", "I64")


def test_the_output_holds_three_files(eagle: Make) -> None:
    assert sorted(os.listdir(eagle().convert().output)) == FILES


def test_the_record_names_every_source_file_with_its_hash(eagle: Make) -> None:
    draft = eagle()
    record = json.loads((draft.convert().output / "conversion.json").read_text())
    assert record["source"]["id"] == str(draft.folder)
    assert record["source"]["sha256"] == {
        name: hashlib.sha256((draft.folder / name).read_bytes()).hexdigest()
        for name in ("config.json", "model.safetensors")
    }


def test_the_record_says_why_and_how(biased: Any, verifier: Path) -> None:
    converted = biased.convert(fusion_bias=False, speculative_tokens=4)
    record = json.loads((converted.output / "conversion.json").read_text())
    assert record["flags"] == {"fusion_bias": False, "speculative_tokens": 4}
    assert record["verifier"]["id"] == str(verifier)
    assert record["tensors"] == converted.conversion.to_json()["tensors"]
    assert record["findings"] == converted.conversion.to_json()["findings"]
    assert record["evidence"]["for"]
    assert set(record["versions"]) == {"spec_convert", "format_provider"}


def test_the_same_input_gives_the_same_bytes(eagle3: Make) -> None:
    draft = eagle3()
    one, other = draft.convert().output, draft.convert().output
    assert [(one / file).read_bytes() for file in FILES] == [(other / file).read_bytes() for file in FILES]


DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


@pytest.mark.parametrize("to", DTYPES)
@pytest.mark.parametrize("stored", DTYPES)
def test_a_cast_rounds_as_torch_rounds(eagle: Make, stored: str, to: str) -> None:
    draft = eagle()
    draft.tensors = {name: tensor.to(DTYPES[stored]) for name, tensor in draft.tensors.items()}
    converted = draft.convert(dtype=to)
    assert converted.config["torch_dtype"] == to
    for name, tensor in draft.tensors.items():
        assert torch.equal(converted.tensors[name], tensor.to(DTYPES[to])), name


def test_a_cast_leaves_the_vocabulary_map_alone(eagle3: Make) -> None:
    draft = eagle3()
    converted = draft.convert(dtype="float16", validate=True)
    assert all(torch.equal(converted.tensors[name], draft.tensors[name]) for name in ("d2t", "t2d"))


def test_a_cast_that_would_make_infinities_is_refused(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["fc.weight"][0, 0] = 1e6
    refused = draft.refusal(dtype="float16")["value-lost"]
    assert refused.where == "fc.weight"
    assert draft.convert(dtype="bfloat16").config["torch_dtype"] == "bfloat16"


def test_an_unknown_dtype_is_refused(eagle: Make) -> None:
    with pytest.raises(UsageError, match="float7"):
        eagle().convert(dtype="float7")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_not_finite_is_refused_and_nothing_is_left(eagle: Make, bad: float, tmp_path: Path) -> None:
    draft = eagle()
    draft.tensors["layers.0.mlp.up_proj.weight"][-1, -1] = bad
    assert draft.refusal()["not-finite"].where == "layers.0.mlp.up_proj.weight"
    assert sorted(os.listdir(tmp_path)) == ["draft", "verifier"]


def test_a_dry_run_writes_nothing_and_tells_the_same(eagle3: Make, tmp_path: Path) -> None:
    draft = eagle3()
    dry = draft.convert(dry_run=True).conversion
    assert sorted(os.listdir(tmp_path)) == ["draft", "verifier"]
    wet = draft.convert()
    assert dry.written is False
    assert dry.plan.config == wet.config
    assert dry.to_json()["tensors"] == wet.conversion.to_json()["tensors"]


def test_a_dry_run_pushes_nothing(eagle: Make) -> None:
    assert eagle().convert(dry_run=True, push_to_hub="somebody/something").conversion.pushed_to is None


def test_validation_refuses_before_anything_appears(eagle: Make, tmp_path: Path) -> None:
    draft = eagle(rope_scaling={"rope_type": "spiral", "factor": 2.0})
    assert "spiral" in draft.refusal(validate=True)["forward-failed"].message
    assert sorted(os.listdir(tmp_path)) == ["draft", "verifier"]


def test_weights_so_large_that_the_logits_overflow_are_refused_by_validation(eagle: Make) -> None:
    draft = eagle()
    draft.tensors["fc.weight"] = torch.full((16, 32), 1e38)
    assert "forward-not-finite" in draft.refusal(validate=True)


def test_the_interface_of_the_speculators_library_converts(eagle: Make, tmp_path: Path, verifier: Path) -> None:
    output = tmp_path / "output"
    EagleConverter().convert(input_path=eagle().write(), output_path=output, base_model=str(verifier))
    assert load_draft(output).fc.bias is None


def test_the_interface_of_the_speculators_library_passes_its_flags_on(
    biased: Any, tmp_path: Path, verifier: Path
) -> None:
    done = EagleConverter().convert(biased.write(), tmp_path / "output", str(verifier), fusion_bias=False)
    assert done.plan.request.flags == {"fusion_bias": False}
    with pytest.raises(Refused, match="layernorm"):
        EagleConverter().convert(biased.folder, tmp_path / "other", str(verifier), layernorms=True)


def test_the_interface_of_the_speculators_library_validates_unless_told_not_to(
    eagle: Make, tmp_path: Path, verifier: Path
) -> None:
    source = eagle(rope_scaling={"rope_type": "spiral", "factor": 2.0}).write()
    with pytest.raises(Refused, match="spiral"):
        EagleConverter().convert(source, tmp_path / "output", str(verifier))
    assert EagleConverter().convert(source, tmp_path / "output", str(verifier), validate=False).written


def test_a_verifier_given_by_relative_path_is_named_by_its_absolute_one(
    eagle: Make, verifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    converted = eagle().convert(verifier="verifier")
    assert converted.config["speculators_config"]["verifier"]["name_or_path"] == str(verifier)
    monkeypatch.chdir("/")
    assert load_draft(converted.output).lm_head.weight.shape == (32, 16)


def test_the_architectures_of_the_verifier_are_named(eagle: Make, make_verifier: Make) -> None:
    wrapped = make_verifier("other", architectures=["QwenForCausalLM"])
    reference = eagle().convert(verifier=wrapped).config["speculators_config"]["verifier"]
    assert reference["architectures"] == ["QwenForCausalLM"]


@pytest.mark.parametrize(("key", "value"), [("hidden_size", 24), ("vocab_size", 64)])
@pytest.mark.parametrize("kind", ["eagle", "eagle3", "mlp"])
def test_a_verifier_that_does_not_fit_is_refused(
    kind: str, key: str, value: int, make_verifier: Make, request: pytest.FixtureRequest
) -> None:
    draft = request.getfixturevalue(kind)()
    refused = draft.refusal(verifier=make_verifier("other", **{key: value}))["verifier-mismatch"]
    assert f"{key} is {value}" in refused.message
    assert "--verifier" in refused.hint


def test_the_facts_of_a_multimodal_verifier_are_those_of_its_language_model(eagle3: Make, make_verifier: Make) -> None:
    text = {"hidden_size": 16, "vocab_size": 32, "num_hidden_layers": 12}
    outer = dict.fromkeys(("hidden_size", "vocab_size", "num_hidden_layers"), ...)
    converted = eagle3().convert(verifier=make_verifier("seeing", text_config=text, **outer))
    assert converted.config["eagle_aux_hidden_state_layer_ids"] == [2, 6, 9]


@pytest.mark.parametrize("lacking", ["hidden_size", "vocab_size"])
def test_a_verifier_that_does_not_say_what_is_needed_is_named(eagle: Make, make_verifier: Make, lacking: str) -> None:
    with pytest.raises(Unreadable, match=lacking):
        eagle().convert(verifier=make_verifier("silent", **{lacking: ...}))


def test_a_verifier_without_a_config_is_refused(eagle: Make, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(Unreadable, match=r"config\.json"):
        eagle().convert(verifier=empty)


def test_a_draft_that_names_no_verifier_needs_one(eagle: Make) -> None:
    with pytest.raises(UsageError, match="trained for"):
        eagle().convert(verifier=None)


def test_a_draft_without_a_config_is_refused(eagle: Make, tmp_path: Path, verifier: Path) -> None:
    folder = eagle().write()
    (folder / "config.json").unlink()
    with pytest.raises(Refused) as refused:
        convert(folder, tmp_path / "output", verifier=verifier)
    assert [finding.rule for finding in refused.value.findings] == ["config-missing"]


def test_a_format_given_by_hand_is_taken_with_a_warning_and_all_its_checks(eagle3: Make) -> None:
    draft = eagle3(architectures=["SomethingElse"])
    converted = draft.convert(format="eagle3")
    assert converted.findings["format-forced"].level == "warning"
    assert "missing-tensor" in draft.refusal(format="eagle")


def test_a_format_that_nobody_knows_is_refused(eagle: Make) -> None:
    with pytest.raises(UsageError, match="eagel"):
        eagle().convert(format="eagel")


@pytest.mark.parametrize("tokens", [0, -1])
def test_no_tokens_to_propose_are_refused(eagle: Make, tokens: int) -> None:
    assert "config-invalid" in eagle().refusal(speculative_tokens=tokens)


@pytest.mark.parametrize("theta", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rope_base_that_is_none_is_refused(eagle: Make, theta: float) -> None:
    assert "config-invalid" in eagle().refusal(rope_theta=theta)
