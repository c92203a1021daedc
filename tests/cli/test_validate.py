"""`spec-convert validate`: verdicts as exit codes, reports as text and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def unified(eagle3: Any) -> Path:
    return eagle3().convert().output


def test_a_clean_directory_is_exit_0(cli: Any, unified: Path) -> None:
    ran = cli("validate", unified)
    said = f"{unified}: speculators, level headers: serves as it lies\nno findings in 1 checkpoint\n"
    assert (ran.code, ran.out, ran.err) == (0, said, "")


def test_a_native_checkpoint_is_told_from_what_serves_as_it_lies(cli: Any, eagle: Any) -> None:
    draft = eagle().write()
    ran = cli("validate", draft, "--level", "forward")
    assert (ran.code, ran.out) == (0, f"{draft}: eagle, level forward: ready to convert\nno findings in 1 checkpoint\n")


@pytest.mark.parametrize("level", ["headers", "tensors", "forward"])
def test_every_level_passes_a_good_directory(cli: Any, unified: Path, level: str) -> None:
    assert cli("validate", unified, "--level", level).code == 0


def test_an_error_finding_is_exit_1_and_names_the_rule(cli: Any, eagle: Any) -> None:
    draft = eagle()
    draft.tensors["fc.weight"][0, 0] = float("nan")
    assert cli("validate", draft.write()).code == 0
    ran = cli("validate", draft.folder, "--level", "tensors")
    assert ran.code == 1
    assert "error[not-finite]" in ran.out


def test_json_keeps_its_contract(cli: Any, unified: Path) -> None:
    answer = cli("validate", unified, "--format", "json").json
    assert answer["findings"] == []
    assert answer["summary"] == {"errors": 0, "warnings": 0, "notes": 0, "checkpoints": 1}
    [checked] = answer["checked"]
    assert checked == {"source": str(unified), "format": "speculators", "level": "headers", "set_aside": []}
    (unified / "config.json").unlink()
    answer = cli("validate", unified, "--json").json
    assert answer["schema_version"] == 1
    assert all({"rule", "level", "where", "message", "hint"} <= set(finding) for finding in answer["findings"])
    assert answer["summary"]["errors"] > 0


def test_several_sources_are_one_report_and_the_worst_counts(cli: Any, eagle: Any, unified: Path) -> None:
    draft = eagle()
    del draft.tensors["fc.weight"]
    ran = cli("validate", unified, draft.write(), "--json")
    assert ran.code == 1
    assert [checked["source"] for checked in ran.json["checked"]] == [str(unified), str(draft.folder)]


def test_a_source_that_is_not_there_is_no_verdict(cli: Any, unified: Path) -> None:
    ran = cli("validate", unified, unified / "nowhere")
    assert ran.code == 2
    assert "[no-such-source]" in ran.out


def test_a_hub_that_is_not_reached_is_no_verdict(cli: Any, unified: Path, unreachable: None) -> None:
    ran = cli("validate", unified, "org/draft")
    assert ran.code == 2
    assert "[hub-no-network]" in ran.out


def test_a_damaged_file_is_a_verdict(cli: Any, unified: Path) -> None:
    (unified / "model.safetensors").write_bytes(b"")
    ran = cli("validate", unified)
    assert ran.code == 1
    assert "[unreadable-container]" in ran.out


def test_a_verifier_that_does_not_fit_is_an_error_finding(cli: Any, unified: Path, make_verifier: Any) -> None:
    ran = cli("validate", unified, "--verifier", make_verifier("other", vocab_size=33))
    assert ran.code == 1
    assert "error[verifier-mismatch]" in ran.out


@pytest.mark.parametrize("renderer", ["text", "json", "github", "sarif", "junit"])
def test_every_renderer_speaks_on_stdout_only(cli: Any, eagle: Any, renderer: str) -> None:
    draft = eagle()
    del draft.tensors["fc.weight"]
    ran = cli("validate", draft.write(), "--format", renderer)
    assert (ran.code, ran.err) == (1, "")
    assert "unknown-format" in ran.out


def test_one_look_is_told_in_as_many_forms_as_wanted(cli: Any, eagle: Any, tmp_path: Path) -> None:
    draft = eagle()
    del draft.tensors["fc.weight"]
    logs = [tmp_path / "logs" / name for name in ("found.sarif", "found.xml")]
    ran = cli("validate", draft.write(), "--output", f"sarif={logs[0]}", "--output", f"junit={logs[1]}")
    assert ran.code == 1
    assert all("unknown-format" in text for text in (ran.out, *(log.read_text() for log in logs)))


@pytest.mark.parametrize("output", ["sarif", "sarif=", "yaml=file", "=file"])
def test_an_output_that_names_no_form_or_no_file_is_refused(cli: Any, unified: Path, output: str) -> None:
    ran = cli("validate", unified, "--output", output)
    assert ran.code == 2
    assert "FORMAT=FILE" in ran.err


def test_an_output_that_cannot_be_written_is_told(cli: Any, unified: Path) -> None:
    ran = cli("validate", unified, "--output", f"json={unified}")
    assert ran.code == 2
    assert f"cannot write {unified}: Is a directory" in ran.err


def test_warnings_are_errors_in_every_form_when_that_is_asked_for(cli: Any, eagle: Any) -> None:
    draft = eagle(num_hidden_layers=7).write()
    assert cli("validate", draft).code == 0
    ran = cli("validate", draft, "--strict", "--format", "junit")
    assert ran.code == 1
    assert "<failure" in ran.out


def test_github_also_writes_the_step_summary(
    cli: Any, unified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    cli("validate", unified, "--format", "github")
    assert (
        f"| {unified} | speculators | level headers | 0 | 0 | 0 | serves as it lies |".replace("_", "&#95;")
        in (tmp_path / "summary.md").read_text()
    )


@pytest.mark.parametrize("renderer", ["text", "json", "sarif", "junit"])
def test_other_formats_leave_the_step_summary_alone(
    cli: Any, unified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renderer: str
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert cli("validate", unified, "--format", renderer).code == 0
    assert not (tmp_path / "summary.md").exists()


def test_a_step_summary_that_cannot_be_written_is_one_clear_line(
    cli: Any, unified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    ran = cli("validate", unified, "--format", "github")
    assert ran.code == 2
    assert f"error: cannot write the step summary {tmp_path}: Is a directory\n" in ran.err
