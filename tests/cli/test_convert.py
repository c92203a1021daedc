"""`spec-convert convert`: what it says, its JSON, its exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

KEYS = {"output", "format", "findings", "tensors", "seconds", "config", "written", "pushed_to"}


def test_a_conversion_is_narrated_in_the_familiar_words(cli: Any, eagle: Any, tmp_path: Path) -> None:
    draft = eagle()
    ran = cli("convert", draft.write(), tmp_path / "out", "--verifier", draft.verifier, "--validate")
    lines = [line.removeprefix("INFO").strip() for line in ran.err.splitlines() if line.startswith("INFO")]
    assert lines == [
        f"Converting {draft.folder}",
        "Loaded 9 weights (safetensors), format eagle",
        "Validating …",
        "Forward pass successful",
        f"Saved to: {tmp_path / 'out'}",
    ]


def test_the_result_is_one_line_on_stdout(cli: Any, eagle: Any, tmp_path: Path) -> None:
    draft = eagle()
    ran = cli("convert", draft.write(), tmp_path / "out", "--verifier", draft.verifier)
    assert ran.code == 0
    assert ran.out.startswith(f"{tmp_path / 'out'}: eagle, 9 tensors written, 0 dropped, ")
    assert ran.out.count("\n") == 1


def test_json_is_all_there_is_on_stdout(cli: Any, eagle: Any, tmp_path: Path) -> None:
    draft = eagle()
    ran = cli("convert", draft.write(), tmp_path / "out", "--verifier", draft.verifier, "--json")
    answer = ran.json
    assert set(answer) == KEYS
    assert (answer["output"], answer["format"], answer["written"]) == (str(tmp_path / "out"), "eagle", True)
    assert [moved["target"] for moved in answer["tensors"]["moved"]] == sorted(draft.tensors)
    assert answer["tensors"]["dropped"] == {}
    assert answer["findings"] == []
    assert answer["seconds"] > 0


def test_a_refusal_as_json_has_the_same_keys_and_types(cli: Any, eagle: Any, tmp_path: Path) -> None:
    draft = eagle()
    del draft.tensors["fc.weight"]
    ran = cli("convert", draft.write(), tmp_path / "out", "--verifier", draft.verifier, "--json", "--format", "eagle")
    assert ran.code == 1
    assert set(ran.json) == KEYS
    assert (ran.json["output"], ran.json["tensors"]) == (None, {"moved": [], "dropped": {}})
    assert "missing-tensor" in [finding["rule"] for finding in ran.json["findings"]]


def test_a_damaged_file_as_json_is_a_document_too(cli: Any, eagle: Any, tmp_path: Path) -> None:
    draft = eagle()
    (draft.write() / "model.safetensors").write_bytes(b"\xff" * 40)
    ran = cli("convert", draft.folder, tmp_path / "out", "--verifier", draft.verifier, "--json")
    assert ran.code == 2
    assert [finding["rule"] for finding in ran.json["findings"]] == ["unreadable-container"]


def test_quiet_leaves_findings_and_the_result(cli: Any, eagle: Any, tmp_path: Path) -> None:
    draft = eagle(rope_theta=...)
    ran = cli("-q", "convert", draft.write(), tmp_path / "out", "--verifier", draft.verifier)
    assert "INFO" not in ran.err
    assert "[rope-theta-absent]" in ran.err
    assert "tensors written" in ran.out


def test_a_dry_run_prints_the_plan_and_writes_nothing(cli: Any, eagle: Any, unchanged: Any, tmp_path: Path) -> None:
    draft = eagle()
    draft.tensors["layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    draft.write()
    unchanged()
    ran = cli("convert", draft.folder, tmp_path / "out", "--verifier", draft.verifier, "--dry-run")
    assert "copy  fc.weight -> fc.weight  F32 16 x 32" in ran.out.splitlines()
    assert "drop  layers.0.self_attn.rotary_emb.inv_freq: recomputed from rope_theta" in ran.out.splitlines()
    config = json.loads(ran.out[ran.out.index("{\n") :])
    assert config["speculators_model_type"] == "eagle"
    assert unchanged()


def test_a_dry_run_as_json_holds_the_config(cli: Any, eagle: Any, tmp_path: Path) -> None:
    draft = eagle()
    answer = cli("convert", draft.write(), tmp_path / "out", "--verifier", draft.verifier, "--dry-run", "--json").json
    assert set(answer) == KEYS
    assert not answer["written"]
    assert answer["config"]["transformer_layer_config"]["hidden_size"] == 16


def test_the_flags_reach_the_conversion(cli: Any, eagle3: Any, tmp_path: Path) -> None:
    draft = eagle3()
    flags = ["--aux-layer-ids", "1,4,6", "--norm-before-residual", "--rope-theta", "12345", "--speculative-tokens", "5"]
    ran = cli("convert", draft.write(), tmp_path / "out", "--verifier", draft.verifier, *flags, "--dtype", "bfloat16")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert ran.code == 0
    assert config["eagle_aux_hidden_state_layer_ids"] == [1, 4, 6]
    assert config["norm_before_residual"] is True
    assert config["transformer_layer_config"]["rope_theta"] == 12345
    assert config["speculators_config"]["proposal_methods"][0]["speculative_tokens"] == 5
    assert config["torch_dtype"] == "bfloat16"


def test_the_convention_of_layer_ids_reaches_the_conversion(cli: Any, specforge: Any, tmp_path: Path) -> None:
    draft = specforge(eagle_config={"eagle_aux_hidden_state_layer_ids": [2, 4, 5]})
    flags = ["--aux-layer-convention", "output"]
    assert cli("convert", draft.write(), tmp_path / "out", "--verifier", draft.verifier, *flags).code == 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["eagle_aux_hidden_state_layer_ids"] == [3, 5, 6]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (["--aux-layer-convention", "inputs"], "'inputs' is not one of 'boundary', 'output'"),
        (["--aux-layer-ids", "1,two"], "'1,two' is no list of layer numbers like 2,16,29"),
        (["--rope-theta", "0"], "0.0 is not in the range x>0"),
        (["--dtype", "int8"], "'int8' is not one of"),
        (["--speculative-tokens", "none"], "not a valid integer"),
        (["--formt", "eagle"], "Did you mean"),
    ],
)
def test_a_wrong_flag_is_a_usage_error_that_says_why(cli: Any, tmp_path: Path, flag: list[str], message: str) -> None:
    ran = cli("convert", tmp_path, tmp_path / "out", *flag)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_an_existing_output_needs_force(cli: Any, eagle: Any, tmp_path: Path) -> None:
    draft = eagle()
    args = ("convert", draft.write(), tmp_path / "out", "--verifier", draft.verifier)
    assert cli(*args).code == 0
    again = cli(*args)
    assert again.code == 2
    assert "`--force` replaces it" in again.err
    assert cli(*args, "--force").code == 0
