"""`spec-convert plugins`, with good and broken third parties installed: no plugin can break a command."""

from __future__ import annotations

from typing import Any

import pytest

VERB = """
    import click
    from spec_convert.hookspecs import hookimpl

    @hookimpl
    def spec_convert_commands(cli):
        @cli.command()
        def greet():
            "Say hello."
            click.echo("hello")
"""
TWIN = """
    from dataclasses import replace
    from spec_convert.hookspecs import hookimpl
    from spec_convert.plugins.eagle import EAGLE

    @hookimpl
    def spec_convert_formats():
        return [replace(EAGLE, name="eagle-twin")]
"""


def test_the_built_in_formats_are_plugins_like_any_other(cli: Any) -> None:
    rows = cli("plugins", "--json").json
    assert {"name", "origin", "formats", "commands", "error"} <= set(rows[0])
    assert {"name": "hass", "formats": ["hass"], "error": None}.items() <= rows[
        [row["name"] for row in rows].index("hass")
    ].items()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def (", "SyntaxError"),
        ("from spec_convert.hookspecs import hookimpl\n@hookimpl\ndef spec_convert_format(): ...", "unknown hook"),
        (TWIN.replace("eagle-twin", "eagle"), "the format name `eagle` is taken by spec-convert"),
        (VERB.replace("greet", "convert"), "the command name `convert` is taken"),
        (VERB.replace("import click", "import click; 1 + x"), "name 'x' is not defined"),
        (VERB.replace("@cli.command()", "cli.add(1)"), "AttributeError"),
    ],
)
def test_a_broken_plugin_is_a_row_with_its_reason(process: Any, plugin: Any, code: str, reason: str) -> None:
    ran = process("plugins", PYTHONPATH=plugin("acme", code))
    assert ran.code == 0
    [row] = [line for line in ran.out.splitlines() if line.startswith("acme")]
    assert "acme 1.2" in row
    assert reason in row
    assert any(line.startswith("eagle ") and line.endswith("ok") for line in ran.out.splitlines())


def test_a_broken_plugin_breaks_no_command(process: Any, plugin: Any, eagle: Any) -> None:
    path = plugin("acme", VERB.replace("@cli.command()", "cli.add(1)"))
    assert process("--help", PYTHONPATH=path).code == 0
    assert process("detect", eagle().write(), PYTHONPATH=path).code == 0


def test_a_plugin_brings_verbs_that_help_lists(process: Any, plugin: Any) -> None:
    path = plugin("acme", VERB)
    assert process("greet", PYTHONPATH=path).out == "hello\n"
    assert "greet     Say hello." in process("--help", PYTHONPATH=path).out


def test_a_plugin_brings_formats_that_every_command_knows(process: Any, plugin: Any, eagle: Any) -> None:
    path, folder = plugin("acme", TWIN), eagle().write()
    assert "eagle-twin" in process("formats", PYTHONPATH=path).out
    ran = process("detect", folder, PYTHONPATH=path)
    assert ran.code == 1
    assert "claimed by `eagle` (from spec-convert" in ran.err
    assert "and `eagle-twin` (from acme 1.2)" in ran.err


def test_a_plugin_can_be_left_out(process: Any, plugin: Any, eagle: Any) -> None:
    without = {"PYTHONPATH": plugin("acme", TWIN), "SPEC_CONVERT_DISABLE": "acme"}
    assert process("detect", eagle().write(), **without).code == 0
    assert "disabled by SPEC_CONVERT_DISABLE" in process("plugins", **without).out
