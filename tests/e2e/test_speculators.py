"""The library that defined the unified format loads what we write, with no tensor missing, left over or misshapen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import spec_convert

from ..plugins.mtp_targets import EXTRACTED, write_target
from .conftest import Convert

pytestmark = pytest.mark.long

FIXTURES = Path(__file__).resolve().parents[1] / "goldens" / "fixtures"
STRICT_LOAD = Path(__file__).with_name("strict_load.py")

# Not among them: a draft narrower than its verifier (eagle3_safeai_own_embed). speculators 0.9.0 sizes `fc` by the
# draft's own width and cannot hold it; vLLM can.
LOADABLE = [
    "eagle3_modelopt",
    "eagle3_safeai",
    "eagle3_shared_head",
    "eagle3_specforge",
    "eagle3_specforge_31",
]


@pytest.fixture(scope="session")
def speculators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with speculators above this environment's torch and transformers.

    SPEC_CONVERT_SPECULATORS_VENV names a folder that outlives the run.
    """
    kept = os.environ.get("SPEC_CONVERT_SPECULATORS_VENV")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("speculators") / "venv"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    (packages / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    # Without its dependencies: they would bring a second torch. All that it lacks here is `datasets`.
    subprocess.run([*install, "--no-deps", "speculators==0.9.0", "hs-connectors==0.9.0"], check=True)
    subprocess.run([*install, "datasets>=4,<=5.1.0"], check=True)
    return python


@pytest.mark.parametrize("case", LOADABLE)
def test_speculators_loads_a_converted_eagle3_draft_strictly(case: str, convert: Convert, speculators: Path) -> None:
    output = convert(FIXTURES / case / "checkpoint", verifier=FIXTURES / case / "verifier")

    loaded = subprocess.run([speculators, STRICT_LOAD, output], check=True, stdout=subprocess.PIPE, text=True)

    report = json.loads(loaded.stdout.splitlines()[-1])
    assert report == {"missing": [], "unexpected": [], "mismatched": [], "unfilled": []}


@pytest.mark.parametrize("kind", EXTRACTED)
def test_speculators_loads_an_extracted_mtp_head_strictly(kind: str, tmp_path: Path, speculators: Path) -> None:
    """Its embedding and its head come out of the target, from where they lie there."""
    target = write_target(tmp_path / "target", *EXTRACTED[kind]())
    output = spec_convert.convert(target, tmp_path / "unified").output

    loaded = subprocess.run([speculators, STRICT_LOAD, output], check=True, stdout=subprocess.PIPE, text=True)

    report = json.loads(loaded.stdout.splitlines()[-1])
    assert report == {"missing": [], "unexpected": [], "mismatched": [], "unfilled": []}
