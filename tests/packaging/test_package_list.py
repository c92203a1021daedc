"""What pyproject.toml says is shipped is what lies in the folders, and nothing else."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = {"spec_convert": "spec_convert", **SETUPTOOLS["package-dir"]}


def test_every_folder_with_code_is_a_listed_package() -> None:
    found = {
        ".".join([package, *file.parent.relative_to(ROOT / folder).parts])
        for package, folder in FOLDERS.items()
        for file in (ROOT / folder).rglob("*.py")
    }
    assert found == set(SETUPTOOLS["packages"])


@pytest.mark.parametrize("package", SETUPTOOLS["packages"])
def test_every_package_says_what_it_is_for(package: str) -> None:
    top = max((name for name in FOLDERS if package == name or package.startswith(f"{name}.")), key=len)
    folder = ROOT / FOLDERS[top] / package.removeprefix(top).lstrip(".").replace(".", "/")
    assert (folder / "__init__.py").read_text().startswith('"""')


def test_nobody_imports_the_parts_by_their_folder_names() -> None:
    """By now every test module has been imported: two copies of one module would have two registries."""
    assert not {"plugins", "schemas", "training"} & set(sys.modules)
