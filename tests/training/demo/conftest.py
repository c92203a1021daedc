"""The demo in a process of its own, as its user sees it, with a verifier that makes a run of it short."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..small import write_verifier

# The command itself, but for a draft vocabulary that is no larger than the small verifier's own.
TELL = """
import sys
from functools import partial
from spec_convert.cli import run
from spec_convert.training.demo import story
story.tell = partial(story.tell, draft_vocabulary=128)
code = run(["demo", "--folder", sys.argv[1], "--epochs", "1"])
print("torch" in sys.modules, file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small verifier of as many layers as EAGLE-3 needs for the states that it is fed."""
    return write_verifier(tmp_path_factory.mktemp("deep") / "verifier", layers=8)


@pytest.fixture(scope="session")
def begin() -> Callable[[Path], subprocess.Popen[str]]:
    """Starts the demo in a folder named `demo`, from the folder around it."""

    def run(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", TELL, folder.name]
        return subprocess.Popen(
            command, cwd=folder.parent, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def tell(begin: Callable[[Path], subprocess.Popen[str]]) -> Callable[[Path], Told]:
    def run(folder: Path) -> Told:
        process = begin(folder)
        out, err = process.communicate()
        return Told(process.returncode, out, err)

    return run


@pytest.fixture(scope="session")
def undisturbed(
    deep: Path, tell: Callable[[Path], Told], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Told]:
    """A demo that ran to its end, and what it said. Not to be changed."""
    folder = with_verifier(tmp_path_factory.mktemp("undisturbed") / "demo", deep)
    return folder, tell(folder)


@pytest.fixture
def finished(undisturbed: tuple[Path, Told], tmp_path: Path) -> Path:
    """A copy of it, at another place."""
    return Path(shutil.copytree(undisturbed[0], tmp_path / "demo", symlinks=True))


@pytest.fixture
def fresh(deep: Path, tmp_path: Path) -> Path:
    """A folder in which a demo finds its verifier unpacked, and nothing else."""
    return with_verifier(tmp_path / "demo", deep)


def with_verifier(folder: Path, verifier: Path) -> Path:
    shutil.copytree(verifier, folder / "verifier")
    return folder
