"""Where the reader of a page sits when its commands are run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ..cli.conftest import _plain_environment, cli  # noqa: F401  commands as tests of the command line run them
from ..training.small import random_samples, write_states, write_verifier
from .pages import ROOT

DRAFT = ROOT / "tests" / "goldens" / "fixtures" / "eagle1_vicuna" / "checkpoint"
LAYERS = 12  # enough for the default boundary ids to be four different ones: 2, 6, 9, 12


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages speak of, tiny: models, conversations, prompts, hidden states, and a directory that is damaged."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(DRAFT, folder / "draft")
    config = json.loads((DRAFT / "config.json").read_text())
    # Heads of 32 instead of 16: vLLM has kernels for CPUs for these.
    (folder / "draft" / "config.json").write_text(json.dumps(config | {"num_attention_heads": 2}))
    write_verifier(folder / "verifier", layers=LAYERS)
    (folder / "damaged").mkdir()
    shutil.copy(folder / "verifier" / "config.json", folder / "damaged")
    (folder / "damaged" / "model.safetensors").write_bytes(b"cut off")
    write_states(folder / "captured", random_samples([30, 50]), ids=(2, LAYERS // 2, LAYERS - 3, LAYERS))
    write_lines(folder / "conversations.jsonl", [conversation(number) for number in range(12)])
    write_lines(folder / "held-out.jsonl", [conversation(number) for number in range(12, 15)])
    write_lines(folder / "prompts.jsonl", [{"prompt": f"What is {number} and {number}?"} for number in range(2)])
    return folder


@pytest.fixture
def folder(laid_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it for one reader, who is there."""
    shutil.copytree(laid_out, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def conversation(number: int) -> dict[str, object]:
    turns = [("human", f"What is {number} and {number}?"), ("gpt", f"It is {2 * number}, the sum of both.")]
    return {"conversations": [{"from": who, "value": text} for who, text in turns]}


def write_lines(file: Path, rows: list[dict[str, object]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
