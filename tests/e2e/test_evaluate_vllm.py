"""`spec-convert evaluate --engine vllm` finds of real drafts what was measured of them in their authors' layouts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .real_vllm import ENVIRONMENT

pytestmark = [pytest.mark.long, pytest.mark.vllm]

TWO_POINTS = 0.02


@pytest.mark.parametrize("draft", ["eagle1_smol135", "eagle3_smol135"])
def test_acceptance_speed_and_text_are_as_measured_natively(
    draft: str, real_drafts: Path, smollm2: Path, tmp_path: Path
) -> None:
    measured = json.loads((real_drafts / "measured.json").read_text())
    found = evaluate(real_drafts / draft, smollm2, measured, tmp_path)

    assert found["acceptance_per_position"] == pytest.approx(measured[draft]["acceptance_per_position"], abs=TWO_POINTS)
    assert found["mean_acceptance_length"] == pytest.approx(measured[draft]["mean_acceptance_length"], abs=TWO_POINTS)
    assert found["lossless"] is True
    assert found["differences"] == []
    assert (found["engine"], found["prompts"], found["answers"]) == ("vllm", 20, 20)
    assert found["tokens"]["with_draft"] == sum(map(len, measured["verifier_token_ids"]))
    assert min(found["tokens_per_second"].values()) > 0
    assert found["speedup"] > 0


def test_sampled_drafts_are_measured_right_or_not_at_all(real_drafts: Path, smollm2: Path, tmp_path: Path) -> None:
    """The CPU build of vLLM 0.32 loses the temperature while it verifies drafts, and then accepts almost none."""
    measured = json.loads((real_drafts / "measured.json").read_text())
    ran = run(real_drafts / "eagle3_smol135", smollm2, measured, tmp_path, "--temperature", "0.8", "--no-compare")
    if ran.returncode == 2:
        assert "samples wrongly when it drafts on the CPU" in ran.stderr
    else:
        assert json.loads(ran.stdout)["acceptance_per_position"][0] > 0.1


def evaluate(draft: Path, verifier: Path, measured: dict[str, Any], tmp_path: Path) -> Any:
    ran = run(draft, verifier, measured, tmp_path)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def run(draft: Path, verifier: Path, measured: dict[str, Any], tmp_path: Path, *flags: str) -> Any:
    """The draft as published: it is converted into a cache of its own on the way."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in measured["prompts"]))
    arguments = dict(measured["llm_args"])
    command = [
        Path(sys.executable).with_name("spec-convert"), "evaluate", draft, "--verifier", verifier,
        "--prompts", prompts, "--engine", "vllm", "--max-tokens", str(measured["sampling"]["max_tokens"]),
        "--dtype", arguments.pop("dtype"), "--json", *flags,
    ]  # fmt: skip
    for name, value in arguments.items():
        command += ["--llm-arg", f"{name}={value}"]
    environment = os.environ | ENVIRONMENT | {"SPEC_CONVERT_CACHE": str(tmp_path / "cache")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=500)
