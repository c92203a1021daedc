"""The damaged checkpoints in `fixtures/`: `expect.json` says what must become of each, and why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from .making import EAGLE, FIXTURES
from .sandbox import SECRET


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cases, seen from an empty working directory: a payload that runs leaves a file there."""
    monkeypatch.chdir(tmp_path)
    return FIXTURES


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where cases are made, each in a folder of its own. Beside them is `outside`, which none of them may read.

    It holds a sound checkpoint, so that reading it would seem to work.
    """
    folder = tmp_path_factory.mktemp("hostile") / "cases"
    shutil.copytree(EAGLE / "checkpoint", folder / "outside")
    config = json.loads((EAGLE / "checkpoint" / "config.json").read_text())
    (folder / "outside" / "config.json").write_text(json.dumps(config | {"model_type": SECRET}))
    return folder
