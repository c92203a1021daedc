"""The example of a third party's plugin: built, installed from its wheel in a clean environment, and tested there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, Environment, pip

pytestmark = pytest.mark.long

EXAMPLE = ROOT / "examples" / "spec-convert-medusa"
MAKE = (
    "from pathlib import Path; from spec_convert.testing import tiny_checkpoint, tiny_verifier; "
    "tiny_checkpoint('medusa', Path('draft')); tiny_verifier(Path('verifier'))"
)


@pytest.fixture(scope="module")
def example_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy: builds leave their traces in the folder that they are run in."""
    copy, folder = tmp_path_factory.mktemp("example") / EXAMPLE.name, tmp_path_factory.mktemp("wheel")
    shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    pip("wheel", copy, "--wheel-dir", folder)
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def environment(new_environment: Callable[..., Environment], wheel: Path, example_wheel: Path) -> Environment:
    return new_environment("--no-index", wheel, example_wheel)


def test_its_own_tests_pass_outside_of_any_checkout(environment: Environment, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    ran = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout
    assert "passed" in ran.stdout
    assert "skipped" not in ran.stdout


def test_it_is_listed_beside_the_built_in_plugins(environment: Environment, tmp_path: Path) -> None:
    ran = environment.run("spec-convert", "--strict-plugins", "plugins", "--json", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    [row] = [row for row in json.loads(ran.stdout) if row["name"] == "medusa"]
    assert (row["origin"], row["formats"], row["error"]) == ("spec-convert-medusa 0.1", ["medusa"], None)


def test_every_command_knows_its_format(environment: Environment, tmp_path: Path) -> None:
    assert environment.run("python", "-c", MAKE, cwd=tmp_path).returncode == 0
    detected = environment.run("spec-convert", "detect", "draft", "--json", cwd=tmp_path)
    assert json.loads(detected.stdout)["format"] == "medusa"
    flags = ["--verifier", "verifier", "--validate"]
    converted = environment.run("spec-convert", "convert", "draft", "unified", *flags, cwd=tmp_path)
    assert converted.returncode == 0, converted.stderr
    assert json.loads((tmp_path / "unified" / "conversion.json").read_text())["versions"]["format_provider"] == (
        "spec-convert-medusa 0.1"
    )
    ran = environment.run("spec-convert", "validate", "unified", "--level", "forward", "--json", cwd=tmp_path)
    report = json.loads(ran.stdout)
    assert (ran.returncode, report["findings"]) == (0, []), ran.stdout
    assert "medusa" in environment.run("spec-convert", "formats", cwd=tmp_path).stdout
