"""Both kinds of install, each in an environment of its own that borrows only the dependencies of this one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("pyproject.toml", "README.md", "spec_convert", "plugins", "schemas", "training")


@dataclass(frozen=True)
class Environment:
    """A virtual environment with spec-convert in it."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment; PYTHONPATH and the like stay outside."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        program = [str(self.folder / "bin" / command[0]), *command[1:]]
        return subprocess.run(program, cwd=cwd, env=clean, capture_output=True, text=True, check=False)


def pip(*args: object) -> None:
    """Isolated builds need a network, so they are left to environments whose setuptools is too old for ours."""
    isolated = int(version("setuptools").partition(".")[0]) < 77
    build = [] if isolated else ["--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *args, "--no-deps", *build]
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def copy_checkout(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A copy of what the checkout ships, without what builds and installs have left in it."""

    def copy() -> Path:
        root = tmp_path_factory.mktemp("checkout")
        for name in SHIPPED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, root / name)
        return root

    return copy


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    def make(*requirement: object) -> Environment:
        environment = Environment(tmp_path_factory.mktemp("environment"))
        venv.create(environment.folder, with_pip=False)
        site = sysconfig.get_path("purelib", vars={"base": str(environment.folder)})
        # Puts the dependencies on the path, but not their .pth files, so that no other spec-convert comes along.
        (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        # --ignore-installed: never touch the spec-convert of the environment that runs the tests.
        pip("--python", environment.python, "install", "--ignore-installed", *requirement)
        return environment

    return make


@pytest.fixture(scope="session")
def wheel(copy_checkout: Callable[[], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", copy_checkout(), "--wheel-dir", folder)
    [built] = folder.iterdir()
    return built
