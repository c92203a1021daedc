"""The command line as tests run it: in this process when speed matters, in one of its own when the process matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from spec_convert.cli import run

from ..hub.conftest import hub, unreachable  # noqa: F401  the Hub of tests/hub

# What would change a command's output, wherever the tests run.
UNSET = (
    "NO_COLOR", "FORCE_COLOR", "CI", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "HF_TOKEN",
    "SPEC_CONVERT_DISABLE", "SPEC_CONVERT_TRACE", "SPEC_CONVERT_DEBUG",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that ended: its exit code and what it said on both streams."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`cli("detect", folder)` runs a command in this process."""

    def call(*args: object) -> Ran:
        code = run([str(arg) for arg in args])
        said = capfd.readouterr()
        return Ran(code=code, out=said.out, err=said.err)

    return call


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., Ran]:
    """`process("detect", folder, NO_COLOR="1")` runs a command as a process; capitals are its environment."""

    def call(*args: object, **environment: str) -> Ran:
        command = [sys.executable, "-m", "spec_convert", *map(str, args)]
        ran = subprocess.run(
            command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        return Ran(code=ran.returncode, out=ran.stdout, err=ran.stderr)

    return call


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str, str], str]:
    """`plugin("name", code)` installs a plugin package somewhere; returns the PYTHONPATH that finds it."""

    def install(name: str, code: str) -> str:
        site = tmp_path / "site"
        about = site / f"{name}-1.2.dist-info"
        about.mkdir(parents=True)
        module = name.replace("-", "_")
        (site / f"{module}.py").write_text(dedent(code))
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (about / "entry_points.txt").write_text(f"[spec_convert]\n{name} = {module}\n")
        return str(site)

    return install


@pytest.fixture
def unchanged(tmp_path: Path) -> Callable[[], bool]:
    """Call it to take stock of the folder of the test, call it again to hear whether it is still the same."""
    before: list[set[Path]] = []

    def look() -> bool:
        before.append(set(tmp_path.rglob("*")))
        return before[0] == before[-1]

    return look
