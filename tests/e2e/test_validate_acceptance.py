"""The gate `validate --level acceptance`, on a real draft and its verifier: it lets pass what helps, and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long


@pytest.fixture
def gate(real_drafts: Path, smollm2: Path, tmp_path: Path) -> Callable[..., Any]:
    """`gate(1.2)`: the installed command on the EAGLE-1 draft, with this threshold, in a process of its own."""
    measured = json.loads((real_drafts / "measured.json").read_text())
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in measured["prompts"]))

    def run(threshold: float) -> tuple[int, dict[str, Any]]:
        command = [
            Path(sys.executable).with_name("spec-convert"), "validate", real_drafts / "eagle1_smol135",
            "--verifier", smollm2, "--level", "acceptance", "--prompts", prompts, "--limit", 1,
            "--max-tokens", 32, "--min-acceptance-length", threshold, "--isolated", "--json",
        ]  # fmt: skip
        threads = {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}  # a real model computes with all of them
        ran = subprocess.run(
            [*map(str, command)], capture_output=True, text=True, check=False, env=os.environ | threads
        )
        return ran.returncode, json.loads(ran.stdout)

    return run


def errors(report: dict[str, Any]) -> list[str]:
    return [finding["rule"] for finding in report["findings"] if finding["level"] == "error"]


@pytest.mark.timeout(1800)
def test_a_real_draft_passes_what_it_reaches_and_fails_what_it_does_not(gate: Callable[..., Any]) -> None:
    code, report = gate(1.2)
    assert (code, errors(report)) == (0, [])
    assert report["checked"][0]["level"] == "acceptance"
    [note] = [finding["message"] for finding in report["findings"] if finding["rule"] == "acceptance-measured"]
    assert " in 1 answer with transformers; " in note

    code, report = gate(3.0)
    assert (code, errors(report)) == (1, ["acceptance-too-low"])
    [low] = [finding["message"] for finding in report["findings"] if finding["rule"] == "acceptance-too-low"]
    assert ", below 3; accepted by position: " in low
