"""A wheel and an editable install, used from inside and from outside a checkout."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, Environment

pytestmark = pytest.mark.long

PARTS = "import spec_convert.plugins, spec_convert.schemas, spec_convert.training"
SCHEMAS = (
    "from importlib.resources import files; print(files('spec_convert.schemas').joinpath('eagle3.json').read_text())"
)
TOP_LEVEL = (
    "from importlib.util import find_spec; print([n for n in ('plugins', 'schemas', 'training') if find_spec(n)])"
)
HOME = "import spec_convert.plugins.eagle as e; print(e.__file__)"


@pytest.fixture(scope="module")
def checkout(copy_checkout: Callable[[], Path]) -> Path:
    return copy_checkout()


@pytest.fixture(scope="module")
def from_wheel(new_environment: Callable[..., Environment], wheel: Path) -> Environment:
    return new_environment("--no-index", wheel)


@pytest.fixture(scope="module")
def editable(new_environment: Callable[..., Environment], copy_checkout: Callable[[], Path]) -> Environment:
    return new_environment("--editable", copy_checkout())


@pytest.fixture(params=["from_wheel", "editable"])
def environment(request: pytest.FixtureRequest) -> Environment:
    found: Environment = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["inside", "outside"])
def place(request: pytest.FixtureRequest, checkout: Path, tmp_path: Path) -> Path:
    return checkout if request.param == "inside" else tmp_path


def test_the_module_and_the_command_run(environment: Environment, place: Path) -> None:
    for command in (["python", "-m", "spec_convert", "--version"], ["spec-convert", "--version"]):
        ran = environment.run(*command, cwd=place)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout.startswith("spec-convert, version")


def test_all_built_in_formats_are_there(environment: Environment, place: Path) -> None:
    for command in (["python", "-m", "spec_convert"], ["spec-convert"]):
        ran = environment.run(*command, "plugins", "--json", cwd=place)
        assert {row["name"] for row in json.loads(ran.stdout)} >= {"eagle", "eagle3", "hass", "speculators"}
        assert [row["error"] for row in json.loads(ran.stdout) if row["error"]] == []


def test_all_parts_can_be_imported(environment: Environment, place: Path) -> None:
    ran = environment.run("python", "-c", PARTS, cwd=place)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_schemas_come_along(environment: Environment, place: Path) -> None:
    ran = environment.run("python", "-c", SCHEMAS, cwd=place)
    assert json.loads(ran.stdout) == json.loads((ROOT / "schemas" / "eagle3.json").read_text())


def test_no_part_is_a_module_of_its_own(environment: Environment, tmp_path: Path) -> None:
    assert environment.run("python", "-c", TOP_LEVEL, cwd=tmp_path).stdout == "[]\n"


def test_a_real_checkpoint_converts(environment: Environment, place: Path, tmp_path: Path) -> None:
    case = ROOT / "tests" / "goldens" / "fixtures" / "eagle1_vicuna"
    args = ["convert", str(case / "checkpoint"), str(tmp_path / "out"), "--verifier", str(case / "verifier")]
    ran = environment.run("python", "-m", "spec_convert", *args, cwd=place)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_inside_a_checkout_python_runs_the_code_of_the_checkout(from_wheel: Environment, checkout: Path) -> None:
    assert from_wheel.run("python", "-c", HOME, cwd=checkout).stdout == f"{checkout / 'plugins' / 'eagle.py'}\n"


def test_the_command_of_a_wheel_runs_the_wheel_wherever_it_is_called(
    from_wheel: Environment, copy_checkout: Callable[[], Path]
) -> None:
    newer = copy_checkout()
    pyproject = newer / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('version = "', 'version = "99.', 1))
    assert from_wheel.run("spec-convert", "formats", cwd=newer).returncode == 0
    mixed = from_wheel.run("python", "-m", "spec_convert", "formats", cwd=newer)
    assert (mixed.returncode, mixed.stdout) == (2, "")
    assert "pip install -e" in mixed.stderr
    assert "Traceback" not in mixed.stderr


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: Path, checkout: Path) -> None:
    folders = {"spec_convert": "spec_convert"} | {f"spec_convert/{n}": n for n in ("plugins", "schemas", "training")}
    wanted = {
        f"{home}/{file.relative_to(checkout / folder)}"
        for home, folder in folders.items()
        for file in (checkout / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted
