"""The pages that are made of the code are those that the code makes now, wherever that is and whoever else is there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from spec_convert.documentation import BEGIN, END, PAGES, completed

from ..cli.conftest import plugin  # noqa: F401  a plugin of somebody else
from .pages import ROOT

STRANGER = """
    from dataclasses import replace

    import click

    from spec_convert.formats import Export
    from spec_convert.hookspecs import hookimpl
    from spec_convert.plugins.eagle import EAGLE

    @hookimpl
    def spec_convert_formats():
        way = Export(target="acme-server", of="eagle", write=lambda draft: None)
        return [replace(EAGLE, name="acme-eagle", exports=(way,))]

    @hookimpl
    def spec_convert_commands(cli):
        cli.add_command(click.Command("acme", short_help="Acme."))
"""
GENERATE = """
from spec_convert.cli import run

run(["--help"])
from spec_convert.documentation import *

write_all(Path())
Path("README.md").write_text(completed(BEGIN + END))
"""


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_as_the_code_makes_it(name: str) -> None:
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == PAGES[name](), "`make docs` makes the pages anew"


def test_the_readme_has_the_formats_as_the_code_makes_them() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == completed(text), "`make docs` makes them anew"


def test_a_readme_without_a_place_for_them_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the formats"):
        completed("# A page\n")


def test_no_plugin_no_terminal_and_no_switch_changes_a_page(
    plugin: Callable[[str, str], str],  # noqa: F811
    tmp_path: Path,
) -> None:
    there = {"PYTHONPATH": plugin("acme", STRANGER), "COLUMNS": "200", "SPEC_CONVERT_DISABLE": "eagle,hass"}
    ran = subprocess.run(
        [sys.executable, "-c", GENERATE],
        cwd=tmp_path,
        env=os.environ | there,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "Acme." in ran.stdout, "the stranger came in by the door"
    made = {name: page() for name, page in PAGES.items()} | {"README.md": completed(BEGIN + END)}
    assert {name: (tmp_path / name).read_text() for name in made} == made
