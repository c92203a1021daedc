"""Inside a checkout the code of the checkout runs, and only when what is installed is of the same version."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import spec_convert.plugins
import spec_convert.schemas
import spec_convert.training
from spec_convert import checkout
from spec_convert.cli import run
from spec_convert.errors import UsageError

PYPROJECT = """
[project]
name = "spec-convert"
version = "{version}"
[project.entry-points."spec_convert"]
{plugins}
"""


@pytest.fixture
def make_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    installed = importlib.metadata.distribution("spec-convert")
    plugins = [f'{p.name} = "{p.value}"' for p in installed.entry_points if p.group == "spec_convert"]

    def make(*, version: str = installed.version, more: str = "") -> None:
        (tmp_path / "pyproject.toml").write_text(PYPROJECT.format(version=version, plugins="\n".join([*plugins, more])))
        monkeypatch.setattr(checkout, "ROOT", tmp_path)
        monkeypatch.setattr(checkout, "IS_CHECKOUT", True)
        checkout.require_installed.cache_clear()

    return make


@pytest.fixture(autouse=True)
def _ask_again() -> Any:
    yield
    checkout.require_installed.cache_clear()


def test_an_installation_of_this_version_may_run(make_checkout: Any) -> None:
    make_checkout()
    checkout.require_installed()


@pytest.mark.parametrize("difference", [{"version": "99.0"}, {"more": 'new = "spec_convert.plugins.new"'}])
def test_another_version_or_other_plugins_are_refused_with_the_command_that_mends_it(
    make_checkout: Any, tmp_path: Path, difference: dict[str, str]
) -> None:
    make_checkout(**difference)
    with pytest.raises(UsageError, match="with another version or other plugins than this code") as refusal:
        checkout.require_installed()
    assert f"`pip install -e {tmp_path}`" in refusal.value.hint


def test_a_checkout_that_is_not_installed_says_so(make_checkout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    make_checkout()
    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(UsageError, match="not installed in this Python"):
        checkout.require_installed()


def test_every_command_asks_first(make_checkout: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make_checkout(version="99.0")
    assert run(["--version"]) == 2
    assert "cannot run" in capsys.readouterr().err


def test_an_installed_package_reads_no_pyproject(make_checkout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    make_checkout(version="99.0")
    monkeypatch.setattr(checkout, "IS_CHECKOUT", False)
    checkout.require_installed()


def test_all_parts_come_from_one_place() -> None:
    parts = [spec_convert.plugins, spec_convert.schemas, spec_convert.training]
    top = Path(str(spec_convert.__file__)).parent
    for part in parts:
        assert Path(str(part.__file__)).parent.parent in (top, top.parent)
