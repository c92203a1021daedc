"""The tutorial for authors of plugins does not lie: its listing is the module on disk, and its sessions are run."""

from __future__ import annotations

from pathlib import Path

from ..docs.pages import Page
from ..docs.walking import Reader
from ..medusa import HOME, environment

TUTORIAL = Page(HOME / "README.md")
BETWEEN = "\n\n"  # the two empty lines around a function stand between two listings


def test_the_listing_is_the_module_on_disk() -> None:
    assert BETWEEN.join(TUTORIAL.blocks("python")) == (HOME / "spec_convert_medusa.py").read_text()


def test_so_is_that_of_the_package() -> None:
    assert TUTORIAL.blocks("toml") == [(HOME / "pyproject.toml").read_text()]


def test_the_test_is_the_one_on_disk() -> None:
    [snippet] = TUTORIAL.blocks("py")
    written = (HOME / "tests" / "test_medusa.py").read_text()
    assert snippet.partition("\n\n\n")[2] in written
    assert "FormatContract" in snippet.partition("\n")[0]


def test_the_module_is_short_and_takes_nothing_from_the_built_in_plugins() -> None:
    module = (HOME / "spec_convert_medusa.py").read_text()
    assert len(module.splitlines()) <= 200
    assert "spec_convert.plugins" not in module


def test_its_sessions_show_what_the_commands_say(tmp_path: Path) -> None:
    assert len(list(TUTORIAL.sessions())) >= 8
    assert list(Reader(tmp_path, environment(tmp_path / "site")).problems(TUTORIAL)) == []
