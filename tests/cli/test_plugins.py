"""`spec-convert plugins`, with good and broken third parties installed: no plugin can break a command."""

from __future__ import annotations

import shutil
from pathlib import Path
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
    assert "greet       Say hello." in process("--help", PYTHONPATH=path).out


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


def test_strict_plugins_stops_before_the_verb_and_names_who_is_broken(process: Any, plugin: Any, eagle: Any) -> None:
    path, folder = {"PYTHONPATH": plugin("acme", "import no_such_module")}, eagle().write()
    assert process("detect", folder, **path).code == 0
    ran = process("--strict-plugins", "detect", folder, **path)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: cannot use the plugin `acme` (from acme 1.2): ModuleNotFoundError: No module")
    assert "hint: repair or uninstall it, or leave it out: SPEC_CONVERT_DISABLE=acme" in ran.err


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (VERB.replace("greet", "convert"), "ValueError: the command name `convert` is taken"),
        ("def spec_convert_formats(): return []", "`spec_convert_formats` is not marked with @hookimpl"),
    ],
)
def test_strict_plugins_asks_for_verbs_and_hooks_too(process: Any, plugin: Any, code: str, reason: str) -> None:
    ran = process("--strict-plugins", "no-such-verb", PYTHONPATH=plugin("acme", code))
    assert ran.code == 2
    assert reason in ran.err


def test_strict_plugins_is_content_with_good_ones_and_with_those_left_out(process: Any, plugin: Any) -> None:
    assert process("--strict-plugins", "formats", PYTHONPATH=plugin("acme", VERB)).code == 0
    broken = {"PYTHONPATH": plugin("umbrella", "1 +"), "SPEC_CONVERT_DISABLE": "umbrella"}
    ran = process("--strict-plugins", "formats", **broken)
    assert (ran.code, ran.err) == (0, "")


def test_a_name_to_disable_that_nobody_has_is_a_warning_and_strictly_an_error(process: Any) -> None:
    typo = {"SPEC_CONVERT_DISABLE": "eagel,hass"}
    ran = process("plugins", **typo)
    assert ran.code == 0
    assert ran.err.startswith("warning: SPEC_CONVERT_DISABLE names `eagel`, and no plugin is called so\n")
    strict = process("--strict-plugins", "plugins", **typo)
    assert (strict.code, strict.out) == (2, "")
    assert strict.err.startswith("error: SPEC_CONVERT_DISABLE names `eagel`")


def test_a_verb_that_is_not_there_may_be_one_of_a_broken_plugin(process: Any, plugin: Any) -> None:
    ran = process("greet", PYTHONPATH=plugin("acme", "1 +"))
    assert ran.code == 2
    assert "No such command 'greet'. Not every plugin could be used (acme): `spec-convert plugins` says why." in ran.err
    assert "plugin could be used" not in process("greet").err


def test_a_stranger_with_less_evidence_is_a_finding_that_names_both_providers(
    process: Any, plugin: Any, eagle: Any
) -> None:
    half = "recognise=lambda c: replace(EAGLE.recognise(c), confidence=0.5 * EAGLE.recognise(c).confidence)"
    path, folder = {"PYTHONPATH": plugin("acme", TWIN.replace('twin"', f'twin", {half}'))}, eagle().write()
    ran = process("detect", folder, "--json", **path)
    assert (ran.code, ran.json["format"]) == (0, "eagle")
    (finding,) = ran.json["findings"]
    assert finding["rule"] == "also-claimed"
    assert "taken for `eagle` (from spec-convert 0.1.0); `eagle-twin` (from acme 1.2) claims it" in finding["message"]
    assert "`spec-convert convert … --format eagle-twin`" in finding["hint"]
    assert process("validate", folder, "--json", **path).json["findings"][0] == finding | {"source": str(folder)}
    assert process("explain", "also-claimed").code == 0


@pytest.mark.parametrize(("verb", "field"), [("detect", "features"), ("convert", "layout"), ("convert", "describe")])
def test_a_bug_of_a_format_is_told_as_its_providers_and_not_as_ours(
    process: Any, plugin: Any, eagle: Any, verb: str, field: str
) -> None:
    draft = eagle()
    broken = TWIN.replace('twin"', f'twin", {field}=lambda *_: {{}}["x"]')
    path = {"PYTHONPATH": plugin("acme", broken), "SPEC_CONVERT_DISABLE": "eagle"}
    rest = [draft.folder.parent / "out", "--verifier", draft.verifier] if verb == "convert" else []
    ran = process(verb, draft.write(), *rest, **path)
    assert ran.code == 2
    assert f"error: `{field}` of format `eagle-twin` (from acme 1.2) failed: KeyError: 'x'\n" in ran.err
    assert "  hint: this is a bug of acme 1.2, not of the checkpoint" in ran.err
    assert "Traceback" not in ran.err


def test_validate_tells_it_of_the_one_checkpoint_and_looks_at_the_others(
    process: Any, plugin: Any, eagle: Any, mlp: Any, tmp_path: Path
) -> None:
    path = {"PYTHONPATH": plugin("acme", TWIN.replace('twin"', 'twin", layout=lambda *_: {}["x"]'))}
    theirs = str(shutil.copytree(eagle().write(), tmp_path / "theirs"))
    ran = process("validate", theirs, mlp().write(), "--json", **path, SPEC_CONVERT_DISABLE="eagle")
    assert ran.code == 1
    (finding,) = [finding for finding in ran.json["findings"] if finding["level"] == "error"]
    assert (finding["rule"], finding["where"]) == ("plugin-bug", "acme 1.2")
    assert finding["message"] == "`layout` of format `eagle-twin` failed: KeyError: 'x'"
    assert finding["source"] == theirs
    assert [one["format"] for one in ran.json["checked"]] == ["eagle-twin", "eagle-mlp"]


def test_its_author_gets_the_traceback(process: Any, plugin: Any, eagle: Any) -> None:
    path = {"PYTHONPATH": plugin("acme", TWIN.replace('twin"', 'twin", features=lambda _: {}["x"]'))}
    ran = process("detect", eagle().write(), **path, SPEC_CONVERT_DISABLE="eagle", SPEC_CONVERT_DEBUG="1")
    assert "Traceback" in ran.err
    assert "acme.py" in ran.err


def test_a_bug_of_a_verb_is_told_as_its_providers_too(process: Any, plugin: Any) -> None:
    ran = process("greet", PYTHONPATH=plugin("acme", VERB.replace('click.echo("hello")', "1 / 0")))
    assert ran.code == 2
    assert "error: the command `greet` (from acme 1.2) failed: ZeroDivisionError: division by zero" in ran.err
    assert "bug of acme 1.2" in ran.err


def test_the_trace_shows_an_author_who_is_asked_and_what_each_answers(process: Any, plugin: Any, eagle: Any) -> None:
    never = "recognise=lambda c: replace(EAGLE.recognise(c), confidence=0.0, against=('no such draft',))"
    path, folder = {"PYTHONPATH": plugin("acme", TWIN.replace('twin"', f'twin", {never}'))}, eagle().write()
    ran = process("detect", folder, **path, SPEC_CONVERT_TRACE="1")
    assert ran.code == 0
    assert "trace: " not in ran.out
    lines = [line.removeprefix("trace: ") for line in ran.err.splitlines() if line.startswith("trace: ")]
    assert "plugin acme (from acme 1.2): loading acme" in lines
    assert "plugin acme: its hooks are spec_convert_formats; it brings eagle-twin" in lines
    assert "recognise: eagle-twin (from acme 1.2) answers 0: - no such draft" in lines
    assert any(line.startswith("recognise: eagle (from spec-convert 0.1.0) answers ") for line in lines)
    assert lines[-1] == "recognise: taken for eagle (from spec-convert 0.1.0)"
    assert "trace: " not in process("detect", folder, **path).err
