"""The settings of `validate`: which file counts, what it may say, that the command line wins, and what never passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spec_convert.validation.settings import KEYS

RENDERERS = ("text", "json", "github", "sarif", "junit")


@pytest.fixture
def unified(eagle3: Any) -> Path:
    output: Path = eagle3().convert().output
    return output


@pytest.fixture
def draft(eagle3: Any) -> Path:
    """A native draft of which one thing is noted: only a verifier tells its layer ids."""
    written: Path = eagle3().write()
    return written


@pytest.fixture
def unfit(unified: Path, make_verifier: Any) -> tuple[Any, ...]:
    """What to type to have one error found by a look that was not cut short."""
    return unified, "--verifier", make_verifier("other", vocab_size=33)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`settings('strict = true')`: writes them, and goes to their folder."""

    def write(text: str, name: str = "spec-convert.toml", folder: str = "project") -> Path:
        place = tmp_path / folder
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
        monkeypatch.chdir(place)
        return place / name

    return write


def severities(ran: Any) -> dict[str, str]:
    return {finding["rule"]: finding["level"] for finding in ran.json["findings"]}


def test_a_severity_of_the_file_is_that_of_the_report(cli: Any, draft: Path, settings: Any) -> None:
    plain = cli("validate", draft, "--json")
    assert severities(plain)["aux-layer-ids-need-verifier"] == "note"
    file = settings('severity = { aux-layer-ids-need-verifier = "error" }')
    ran = cli("validate", draft, "--json")
    assert (ran.code, severities(ran)["aux-layer-ids-need-verifier"]) == (1, "error")
    assert f"Settings from {file}\n" in ran.err


@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize("level", ["error", "warning"])
def test_a_severity_shows_in_every_renderer(cli: Any, draft: Path, settings: Any, renderer: str, level: str) -> None:
    settings(f'severity.aux-layer-ids-need-verifier = "{level}"')
    ran = cli("validate", draft, "--format", renderer)
    shown = {
        "text": f"{level}[aux-layer-ids-need-verifier]",
        "json": f'"level": "{level}"',
        "github": f"::{level} title=spec-convert (aux-layer-ids-need-verifier)",
        "sarif": f'"level": "{level}"',
        "junit": '<failure type="error"' if level == "error" else "<system-out>warning: ",
    }
    assert ran.code == (1 if level == "error" else 0)
    assert shown[renderer] in ran.out


def test_off_leaves_a_rule_out(cli: Any, draft: Path, settings: Any) -> None:
    settings('severity.aux-layer-ids-need-verifier = "off"')
    assert "aux-layer-ids-need-verifier" not in severities(cli("validate", draft, "--json"))


def test_the_table_of_a_pyproject_counts_too(cli: Any, draft: Path, settings: Any) -> None:
    file = settings('[tool.spec-convert]\nignore = ["aux-*"]\n', "pyproject.toml")
    ran = cli("validate", draft, "--json")
    assert "aux-layer-ids-need-verifier" not in severities(ran)
    assert f"Settings from {file}\n" in ran.err


def test_the_nearest_file_counts_and_others_above_do_not(cli: Any, draft: Path, settings: Any) -> None:
    settings('level = "forward"', folder="project")
    settings("[tool.other]\n", "pyproject.toml", folder="project/part")  # without our table: passed over
    assert cli("validate", draft, "--json").json["checked"][0]["level"] == "forward"
    settings("[tool.spec-convert]\n", "pyproject.toml", folder="project/part/deeper")
    ran = cli("validate", draft, "--json")
    assert ran.json["checked"][0]["level"] == "headers"
    assert f"{Path('deeper', 'pyproject.toml')}\n" in ran.err


def test_a_file_of_its_own_wins_over_the_pyproject_beside_it(cli: Any, draft: Path, settings: Any) -> None:
    settings('[tool.spec-convert]\nlevel = "forward"\n', "pyproject.toml")
    settings('level = "tensors"')
    assert cli("validate", draft, "--json").json["checked"][0]["level"] == "tensors"


def test_isolated_looks_for_none(cli: Any, draft: Path, settings: Any) -> None:
    settings("this is no TOML")
    assert cli("validate", draft).code == 2
    ran = cli("validate", draft, "--isolated")
    assert (ran.code, ran.err) == (0, "")


def test_the_command_line_wins(cli: Any, draft: Path, unfit: tuple[Any, ...], settings: Any, verifier: Path) -> None:
    settings('level = "forward"\nstrict = true\nseverity.aux-layer-ids-need-verifier = "warning"\n')
    assert cli("validate", draft).code == 1
    ran = cli("validate", draft, "--no-strict", "--level", "headers", "--json")
    assert (ran.code, ran.json["checked"][0]["level"]) == (0, "headers")
    source, _, other = unfit
    settings(f"verifier = {json.dumps(str(other))}")
    assert cli("validate", source).code == 1
    assert cli("validate", source, "--verifier", verifier).code == 0


def test_what_the_command_line_selects_or_ignores_replaces_the_file(cli: Any, draft: Path, settings: Any) -> None:
    settings('ignore = ["aux-*"]')
    assert severities(cli("validate", draft, "--json")) == {}
    assert "aux-layer-ids-need-verifier" in severities(cli("validate", draft, "--json", "--ignore", "wrong-shape"))
    assert severities(cli("validate", draft, "--json", "--select", "aux-*")) == {"aux-layer-ids-need-verifier": "note"}
    settings('severity.aux-layer-ids-need-verifier = "off"')
    assert severities(cli("validate", draft, "--json")) == {}
    assert severities(cli("validate", draft, "--json", "--select", "aux-*")) == {"aux-layer-ids-need-verifier": "note"}


def test_a_verifier_is_found_from_the_file_wherever_the_command_runs(
    cli: Any, unified: Path, settings: Any, make_verifier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = settings('verifier = "../other"').parent / "deep" / "er"
    make_verifier("other", vocab_size=33)
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    ran = cli("validate", unified, "--json")
    assert (ran.code, list(severities(ran))) == (1, ["verifier-mismatch"])


@pytest.mark.usefixtures("unreachable")
def test_a_verifier_that_is_no_folder_beside_the_file_is_an_id_of_the_hub(
    cli: Any, unified: Path, settings: Any, make_verifier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when a folder of this name lies where the command runs: that one was not meant."""
    file = settings('verifier = "org/base"')
    (file.parent / "sub").mkdir()
    monkeypatch.chdir(file.parent / "sub")
    Path("org").mkdir()
    make_verifier("project/sub/org/base")
    ran = cli("validate", unified)
    assert (ran.code, ran.out) == (2, "")
    assert "HF_ENDPOINT" in ran.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('level = "deep"', "level: there is no level 'deep'"),
        ("level = 3", "level: there is no level 3"),
        ('verifier = ""', "verifier: '' names no model"),
        ("verifier = 1", "verifier: 1 names no model"),
        ('strict = "yes"', "strict: 'yes' is neither true nor false"),
        ('select = "wrong-shape"', "select: 'wrong-shape' is no list of rules"),
        ("select = [1]", "select: [1] is no list of rules"),
        ("select = []", "select: nothing would be reported"),
        ('select = ["wrong-shap"]', "select: there is no rule `wrong-shap`"),
        ('ignore = ["wrong-shap"]', "ignore: there is no rule `wrong-shap`"),
        ('ignore = ["hub-*"]', "ignore: `hub-gated` cannot be left out"),
        ("severity = 1", "severity: 1 is no table"),
        ('severity.wrong-shap = "error"', "severity: there is no rule `wrong-shap`"),
        ('severity.wrong-shape = "eror"', "severity: there is no severity 'eror' for `wrong-shape`"),
        ('severity.no-such-source = "note"', "severity: `no-such-source` cannot be left out"),
    ],
)
def test_a_mistake_in_the_file_is_answered_with_where_it_is(
    cli: Any, draft: Path, settings: Any, text: str, said: str
) -> None:
    file = settings(text)
    ran = cli("validate", draft)
    assert (ran.code, ran.out) == (2, "")
    assert f"error: {file}: {said}" in ran.err
    assert "hint: " in ran.err
    file.unlink()
    file = settings(f"[tool.spec-convert]\n{text}", "pyproject.toml")
    assert f"error: {file}: tool.spec-convert.{said}" in cli("validate", draft).err


def test_an_unknown_key_is_refused(cli: Any, draft: Path, settings: Any) -> None:
    file = settings("strct = true")
    ran = cli("validate", draft)
    assert (ran.code, ran.out) == (2, "")
    assert f"error: {file}: there is no key `strct`" in ran.err
    assert "did you mean `strict`? known are level, verifier, strict" in ran.err


@pytest.mark.parametrize(
    ("text", "meant"),
    [("strct = true", "strict"), ('level = "tensor"', "tensors"), ('ignore = ["wrong-shap"]', "wrong-shape"),
     ('severity.wrong-shape = "eror"', "error")],
)  # fmt: skip
def test_a_misspelt_word_is_answered_with_the_nearest(
    cli: Any, draft: Path, settings: Any, text: str, meant: str
) -> None:
    settings(text)
    assert f"did you mean `{meant}`?" in cli("validate", draft).err


@pytest.mark.parametrize("text", ["[tool]\nspec-convert = 1", "tool = { spec-convert = [] }"])
def test_a_table_that_is_none_is_refused(cli: Any, draft: Path, settings: Any, text: str) -> None:
    settings(text, "pyproject.toml")
    ran = cli("validate", draft)
    assert ran.code == 2
    assert "tool.spec-convert: " in ran.err
    assert "is no table" in ran.err


@pytest.mark.parametrize("content", [b"= 1", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_refused(cli: Any, draft: Path, settings: Any, content: bytes) -> None:
    settings("", "pyproject.toml").write_bytes(content)
    ran = cli("validate", draft)
    assert (ran.code, ran.out) == (2, "")
    assert "is not TOML" in ran.err


def test_the_python_function_reads_no_settings(draft: Path, settings: Any) -> None:
    from spec_convert import validate

    settings("this is no TOML")
    assert not validate(draft).has_errors


def test_every_key_is_tried_above() -> None:
    assert set(KEYS) == {"level", "verifier", "strict", "select", "ignore", "severity"}


@pytest.mark.parametrize("flag", ["--select", "--ignore"])
def test_a_rule_that_is_none_is_refused_with_the_nearest(cli: Any, draft: Path, flag: str) -> None:
    ran = cli("validate", draft, flag, "unclaimed-tensor,wrong-shap")
    assert (ran.code, ran.out) == (2, "")
    assert f"{flag}: there is no rule `wrong-shap`" in ran.err
    assert "did you mean `wrong-shape`?" in ran.err


def test_rules_are_named_by_comma_again_and_again_and_by_glob(cli: Any, draft: Path, settings: Any) -> None:
    settings('severity.aux-layer-ids-need-verifier = "error"')
    ran = cli("validate", draft, "--ignore", "wrong-shape, aux-*", "--ignore", "rope-*", "--json")
    assert (ran.code, severities(ran)) == (0, {})


def test_an_error_that_is_ignored_passes_and_is_named(cli: Any, unfit: tuple[Any, ...]) -> None:
    ran = cli("validate", *unfit, "--ignore", "verifier-mismatch")
    assert ran.code == 0
    assert "level headers: serves as it lies, if verifier-mismatch may be set aside\n" in ran.out
    ran = cli("validate", *unfit, "--ignore", "verifier-mismatch", "--json")
    assert (severities(ran), ran.json["checked"][0]["set_aside"]) == ({}, ["verifier-mismatch"])


def test_an_error_that_hid_the_rest_of_its_level_does_not_pass_when_it_is_ignored(cli: Any, eagle: Any) -> None:
    draft = eagle()
    draft.tensors["something.odd"] = draft.tensors["fc.weight"].clone()
    known = ("validate", draft.write(), "--json")
    assert list(severities(cli(*known))) == ["unclaimed-tensor"]
    ran = cli(*known, "--ignore", "unclaimed-tensor")
    assert (ran.code, severities(ran)) == (1, {"level-not-reached": "error"})
    message = ran.json["findings"][0]["message"]
    assert "level headers was only looked at in part, because of unclaimed-tensor" in message


def test_an_error_of_the_last_level_may_be_ignored(cli: Any, eagle: Any) -> None:
    draft = eagle()
    draft.tensors["fc.weight"][0, 0] = float("nan")
    known = ("validate", draft.write(), "--ignore", "not-finite", "--level")
    ran = cli(*known, "tensors")
    assert ran.code == 0
    assert "level tensors: ready to convert, if not-finite may be set aside" in ran.out
    ran = cli(*known, "forward")
    assert ran.code == 1
    assert "error[forward-not-finite]" in ran.out


def test_an_error_that_is_set_aside_does_not_end_the_look(cli: Any, eagle: Any) -> None:
    draft = eagle()
    draft.tensors["layers.0.mlp.up_proj.weight"].zero_()
    known = ("validate", draft.write(), "--level", "forward")
    assert "level tensors: 1 error" in cli(*known).out
    ran = cli(*known, "--ignore", "all-zero")
    assert ran.code == 0
    assert "level forward: ready to convert, if all-zero may be set aside" in ran.out


@pytest.mark.parametrize("flags", [("--ignore", "hub-*"), ("--ignore", "unreadable-container")])
def test_that_nothing_could_be_looked_at_cannot_be_ignored(cli: Any, draft: Path, flags: tuple[str, ...]) -> None:
    ran = cli("validate", draft, *flags)
    assert (ran.code, ran.out) == (2, "")
    assert "cannot be left out" in ran.err


def test_strict_lets_warnings_fail(cli: Any, draft: Path, settings: Any) -> None:
    settings('severity.aux-layer-ids-need-verifier = "warning"')
    assert cli("validate", draft).code == 0
    assert cli("validate", draft, "--strict").code == 1
    settings('strict = true\nseverity.aux-layer-ids-need-verifier = "note"')
    assert cli("validate", draft).code == 0  # notes never fail


def test_exit_zero_passes_findings_and_no_more(cli: Any, unfit: tuple[Any, ...], tmp_path: Path) -> None:
    ran = cli("validate", *unfit, "--exit-zero")
    assert ran.code == 0
    assert "error[verifier-mismatch]" in ran.out
    source, *_ = unfit
    assert cli("validate", source, "--exit-zero", "--strict").code == 0
    assert cli("validate", source, tmp_path / "nowhere", "--exit-zero").code == 2
    assert cli("validate", source, "--exit-zero", "--verifier", tmp_path / "nowhere").code == 2
    assert cli("validate", source, "--exit-zero", "--ignore", "nothing-like-it").code == 2


def test_files_stand_for_their_folders_each_once(
    cli: Any, draft: Path, unified: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [unified / "model.safetensors", draft / "config.json", unified / "config.json"]
    ran = cli("validate", "--files", *files, "--json")
    assert [one["source"] for one in ran.json["checked"]] == [str(unified), str(draft)]
    monkeypatch.chdir(draft)
    ran = cli("validate", "--files", "config.json", "./model.safetensors", "--json")
    assert [(one["source"], one["format"]) for one in ran.json["checked"]] == [(".", "eagle3")]


@pytest.mark.parametrize("named", ["folder", "nowhere"])
def test_with_files_what_is_no_file_is_refused(cli: Any, draft: Path, named: str) -> None:
    """`org/name/config.json` would otherwise ask the Hub for `org/name`."""
    ran = cli("validate", "--files", draft if named == "folder" else "org/name/config.json")
    assert (ran.code, ran.out) == (2, "")
    assert "is no file" in ran.err
