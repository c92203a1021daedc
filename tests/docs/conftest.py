"""Where the reader of a page sits when its commands are run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..cli.conftest import _plain_environment, cli  # noqa: F401  commands as tests of the command line run them
from ..training.small import random_samples, write_states
from .pages import ROOT

CASE = ROOT / "tests" / "goldens" / "fixtures" / "eagle1_vicuna"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a `draft`, its `verifier`, a `damaged` directory, and hidden states in `states`."""
    shutil.copytree(CASE / "checkpoint", tmp_path / "draft")
    shutil.copytree(CASE / "verifier", tmp_path / "verifier")
    shutil.copytree(CASE / "verifier", tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"cut off")
    write_states(tmp_path / "states", random_samples([3, 5]))
    monkeypatch.chdir(tmp_path)
    return tmp_path
