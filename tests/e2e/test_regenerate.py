"""Regenerating with a real vLLM that the command starts itself: the same greedy rows as with transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from spec_convert.evaluation.chat import open_chat
from spec_convert.evaluation.ties import is_tie

from ..training.small import write_verifier

TURNS = [[f"What is {number} and {number + 3}?", f"And {number} times {number}?"] for number in range(6)]
MAX_TOKENS = 24
PRINTABLE, END = 94, 257  # tokens of the byte tokenizer: "!" to "~" are the first ones, the end of a turn


def write_ascii_verifier(folder: Path) -> Path:
    """It says printable characters only: what is no text at all, vLLM and transformers spell differently."""
    write_verifier(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight[PRINTABLE:END] = 0
        model.lm_head.weight[END + 1 :] = 0
    model.save_pretrained(folder)
    return folder


def regenerate(source: Path, output: Path, verifier: Path, *flags: str) -> list[dict[str, Any]]:
    program = Path(sys.executable).with_name("spec-convert")
    words = [source, output, "--verifier", verifier, "--max-tokens", str(MAX_TOKENS), *flags]
    subprocess.run([program, "regenerate", *words], check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]


def parting(verifier: Path, ours: list[dict[str, str]], theirs: list[dict[str, str]]) -> tuple[float, float] | None:
    """The logits of the two tokens with which the first different answers part; None when all are the same."""
    chat = open_chat(str(verifier), revision=None)
    at = next((at for at, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]), None)
    if at is None:
        return None
    one, other = (chat._tokenizer(said[at]["content"])["input_ids"] + [END] for said in (ours, theirs))
    shared = next(number for number, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(verifier, dtype=torch.float32)
        logits = model(torch.tensor([chat.ask(ours[:at]) + one[:shared]])).logits[0, -1]
    return float(logits[one[shared]]), float(logits[other[shared]])


@pytest.mark.vllm
@pytest.mark.long
def test_vllm_and_transformers_say_the_same(tmp_path: Path) -> None:
    verifier = write_ascii_verifier(tmp_path / "verifier")
    source = tmp_path / "chats.jsonl"
    source.write_text("".join(json.dumps({"turns": turns}) + "\n" for turns in TURNS))
    ours = regenerate(source, tmp_path / "ours.jsonl", verifier, "--engine", "transformers")
    vllm = ("--engine", "vllm", "--llm-arg", "dtype=float32", "--llm-arg", "enforce_eager=true")
    theirs = regenerate(source, tmp_path / "theirs.jsonl", verifier, *vllm)
    assert [row["where"] for row in ours] == [row["where"] for row in theirs]
    assert all(said["content"].isascii() for row in ours for said in row["conversations"])
    same = 0
    for one, other in zip(ours, theirs, strict=True):
        assert len(one["finish_reasons"]) == 2
        logits = parting(verifier, one["conversations"], other["conversations"])
        assert logits is None or is_tie(*logits, "float32")
        same += one == other
    assert same >= len(TURNS) - 1
    assert not list(tmp_path.glob("*.partial"))
