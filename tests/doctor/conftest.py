"""One verifier and its two drafts, trained once; tests break copies of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from spec_convert.doctor.examination import Examination, examine

from . import toy

Break = Callable[[dict[str, Any], dict[str, Tensor]], None]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toy")


@pytest.fixture(scope="session")
def verifier(folder: Path) -> Path:
    return toy.write_verifier(folder / "verifier")


@pytest.fixture(scope="session")
def questions(folder: Path) -> Path:
    return toy.write_questions(folder / "questions.txt")


@pytest.fixture(scope="session")
def states(folder: Path, verifier: Path) -> Path:
    return toy.write_states(folder, verifier)


@pytest.fixture(scope="session")
def eagle3(folder: Path, verifier: Path, states: Path) -> Path:
    """With a vocabulary of its own, and a residual that is taken after `hidden_norm`."""
    said = np.isin(np.arange(toy.VOCABULARY), toy.WORDS)
    np.save(folder / "t2d.npy", said)
    np.save(folder / "d2t.npy", np.array(toy.WORDS) - np.arange(len(toy.WORDS)))
    (folder / "shape.toml").write_text("norm_before_residual = true\n")
    vocabulary = {f"{name}_path": folder / f"{name}.npy" for name in ("d2t", "t2d")}
    shape = {"target_layers": toy.FED, "draft_config": str(folder / "shape.toml")}
    return toy.train("eagle3", verifier, states, folder / "eagle3", epochs=6, **shape, **vocabulary)


@pytest.fixture(scope="session")
def eagle1(folder: Path, verifier: Path, states: Path) -> Path:
    return toy.train("eagle", verifier, states, folder / "eagle1", epochs=5)


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[Path, Break], Path]:
    """A copy of a unified directory after the function has changed its config and tensors."""

    def make(draft: Path, damage: Break) -> Path:
        config, tensors = json.loads((draft / "config.json").read_text()), load_file(draft / "model.safetensors")
        damage(config, tensors)
        copy = tmp_path / "broken"
        copy.mkdir()
        (copy / "config.json").write_text(json.dumps(config))
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, copy / "model.safetensors")
        return copy

    return make


@pytest.fixture
def examined(verifier: Path, questions: Path) -> Callable[..., Examination]:
    """`examined(draft)`: what the doctor finds; `base` is another verifier."""
    return lambda draft, base=verifier: examine(draft, verifier=base, prompts=questions, max_tokens=40)
