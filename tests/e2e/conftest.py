"""What the end-to-end tests stand on: the installed command, a real verifier and real drafts, or a reason to skip."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from spec_convert.errors import UsageError
from spec_convert.training.demo.smollm2 import smollm2_folder

Convert = Callable[..., Path]
BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[3] / "shared"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("vllm") and find_spec("vllm") is None:
        pytest.skip("vllm is not installed: pip install 'spec-convert[vllm]'")


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """`spec-convert convert SOURCE OUTPUT --verifier VERIFIER FLAGS`, as a user types it. Returns OUTPUT."""

    def run(source: Path, *, verifier: Path, flags: Sequence[str] = ()) -> Path:
        output = tmp_path / "converted"
        command = Path(sys.executable).with_name("spec-convert")
        subprocess.run([command, "convert", source, output, "--verifier", verifier, *flags], check=True)
        return output

    return run


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a folder; SPEC_CONVERT_SMOLLM2 names one that outlives the run."""
    kept = os.environ.get("SPEC_CONVERT_SMOLLM2")
    try:
        return smollm2_folder(Path(kept) if kept else tmp_path_factory.mktemp("verifier") / "smollm2")
    except UsageError as absent:
        pytest.skip(f"{absent.message}: {absent.hint}")


@pytest.fixture(scope="session")
def real_drafts() -> Path:
    """Drafts trained with their authors' code for SmolLM2-135M-Instruct, with what vLLM measured of them."""
    folder = Path(os.environ.get("SPEC_CONVERT_SHARED", BESIDE_THE_CHECKOUT)) / "real"
    if not (folder / "measured.json").exists():
        pytest.skip(f"no real drafts in {folder}: set SPEC_CONVERT_SHARED to the folder that holds real/measured.json")
    return folder
