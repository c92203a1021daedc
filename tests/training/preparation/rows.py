"""Rows to prepare, and what came of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from spec_convert.training.store.reading import Store

from ...cli.conftest import Ran
from ..small import byte_tokenizer

Cli = Callable[..., Ran]

# In ChatML and a token a byte, from "<|im_start|>user" on:
# 1 + "user\n" + 2 + 1 + "\n" = 10, 1 + "assistant\n" = 11, the answer at 21, 22 and its end token at 23, "\n" at 24.
ONE = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}
TWO = {"messages": [*ONE["conversations"], {"role": "user", "content": "So"}, {"role": "assistant", "content": ""}]}
UNANSWERED = {"turns": ["Why?", "How?"]}
STRANGER = {"messages": [{"role": "tool", "content": "42"}]}
HEADLESS = {"conversations": [{"from": "gpt", "value": "to what?"}, *ONE["conversations"]]}
LATE = {"question": "A question of many words, of which there are too many", "answer": "Yo"}
SYSTEM = {"messages": [{"role": "system", "content": "Be brief."}, *ONE["conversations"]]}


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def many(path: Path, count: int = 30) -> Path:
    """Rows of different lengths, each told by its answer."""
    return written(path, *({"question": "Why?" * (1 + number % 3), "answer": f"{number}"} for number in range(count)))


def answers(store: Store) -> list[str]:
    """Token ids of the byte tokenizer are looked up, not parsed."""
    return [byte_tokenizer().decode(sample.input_ids[sample.loss_mask]) for sample in store]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def with_tokenizer(verifier: Path, folder: Path, tokenizer: Any) -> Path:
    shutil.copytree(verifier, folder)
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)
    return folder
