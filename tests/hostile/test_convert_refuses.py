"""Hostile checkpoints at the command line: refused with the cause, nothing executed, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spec_convert.cli import run

FIXTURES = Path(__file__).parent / "fixtures"
# What the message must say, so that the user sees the cause and not merely a failure.
CAUSE = {
    "config_empty_object": "has no `num_attention_heads`",
    "config_is_a_list": "config.json",
    "config_not_json": "config.json",
    "config_zero_bytes": "config.json",
    "d2t_contradicts_t2d": "disagrees with t2d",
    "d2t_duplicate_targets": "rows 4 and 5 both stand for token",
    "d2t_float": "d2t: is BF16",
    "d2t_negative_target": "row 0 stands for token -",
    "d2t_out_of_range": "row 23 stands for token",
    "git_lfs_pointer": "git-lfs pointer",
    "heads_do_not_fit": "heads",
    "hidden_size_mismatch_verifier": "hidden_size",
    "index_missing_shard": "model-00002-of-00002.safetensors",
    "index_path_traversal": "outside",
    "missing_lm_head_reduced_vocab": "lm_head.weight: the format requires it",
    "missing_tensor": "layers.0.self_attn.o_proj.weight: the format requires it",
    "missing_tensor_eagle3": "midlayer.mlp.up_proj.weight: the format requires it",
    "nan_in_weight": "layers.0.mlp.gate_proj.weight: holds a NaN",
    "no_weights": "no weight",
    "pickle_named_safetensors_os_system": "system",
    "pickle_os_system_legacy": "system",
    "pickle_os_system_raw": "system",
    "pickle_os_system_zip": "system",
    "safetensors_header_length_huge": "header",
    "safetensors_header_longer_than_file": "header",
    "safetensors_overlapping_offsets": "belong to no tensor",
    "safetensors_shape_bytes_mismatch": "fc.weight",
    "safetensors_truncated": "ends",
    "wrong_shape": "layers.0.mlp.down_proj.weight: has shape",
}
ACCEPTED = ["_control_eagle1", "_control_eagle3", "pickle_in_training_state", "torch_zip_named_safetensors"]
PICKLES = [case for case in [*CAUSE, *ACCEPTED] if case.startswith("pickle")]


def expectation(case: str) -> dict[str, str]:
    told: dict[str, str] = json.loads((FIXTURES / case / "expect.json").read_text())
    return told


def arguments(case: str, output: Path) -> list[str]:
    return [
        "convert",
        str(FIXTURES / case / "checkpoint"),
        str(output),
        "--verifier",
        str(FIXTURES / case / "verifier"),
    ]


def test_every_case_is_looked_at() -> None:
    assert {case.name for case in FIXTURES.iterdir() if case.is_dir()} == {*CAUSE, *ACCEPTED}
    assert {expectation(case)["must"] for case in CAUSE} == {"refuse"}
    assert all(expectation(case)["must"].startswith("accept") for case in ACCEPTED)


@pytest.mark.parametrize("case", CAUSE)
def test_it_is_refused_with_the_cause(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments(case, tmp_path / "output")) in (1, 2)
    said = capsys.readouterr()
    assert CAUSE[case] in said.err
    assert "Traceback" not in said.err
    assert "internal error" not in said.err
    assert said.out == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("case", CAUSE)
def test_a_dry_run_refuses_what_the_headers_tell(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run([*arguments(case, tmp_path / "output"), "--dry-run"])
    assert code == 0 if case == "nan_in_weight" else code in (1, 2)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_sound_one_is_accepted(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*arguments(case, tmp_path / "output"), "--validate"]) == 0
    assert os.listdir(tmp_path) == ["output"]
    assert sorted(os.listdir("output")) == ["config.json", "conversion.json", "model.safetensors"]


@pytest.mark.parametrize("case", PICKLES)
def test_a_payload_does_not_run_in_a_process_of_its_own(case: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    command = [sys.executable, "-m", "spec_convert", *arguments(case, output)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (0 if case in ACCEPTED else 2), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / expectation(case)["marker"]).exists()
    assert os.listdir(tmp_path) == (["output"] if case in ACCEPTED else [])


@pytest.mark.parametrize("verb", ["detect", "inspect", "validate"])
@pytest.mark.parametrize("case", PICKLES)
def test_no_other_command_runs_a_payload(
    verb: str, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run([verb, str(FIXTURES / case / "checkpoint")])
    assert "internal error" not in capsys.readouterr().err
    assert os.listdir(tmp_path) == []
