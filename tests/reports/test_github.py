"""The report as GitHub Actions reads it."""

from __future__ import annotations

import pytest

from spec_convert.errors import UsageError
from spec_convert.findings import Depth, Finding, Level
from spec_convert.reports import RENDERERS, Checked, Report
from spec_convert.reports.github import ROWS, write_step_summary

GOLDEN = """\
::error title=spec-convert (missing-tensor),file=drafts/broken::\
drafts/broken: layers.{0...3}.mlp.up_proj.weight: the format requires it beside layers.{0...3}.mlp.down_proj.weight\
%0Ahint: spec-convert inspect drafts/broken
::error title=spec-convert (wrong-shape),file=drafts/broken/model.safetensors::\
drafts/broken: model.safetensors: fc.weight: has shape [64, 128], 100%25 of its rows: expected [64, 192]
::warning title=spec-convert (house-rule),file=drafts/broken/config.json::drafts/broken: config.json: names no author
5 errors, 1 warning in 2 checkpoints"""

SUMMARY = """\
### spec-convert validate

| checkpoint | format | looked at | errors | warnings | notes | verdict |
| --- | --- | --- | --- | --- | --- | --- |
| drafts/broken | eagle3 | level headers in part | 5 | 1 | 0 | 5 errors |
| org/clean | eagle | level tensors | 0 | 0 | 0 | ready to convert |

| level | rule | where | message | hint |
| --- | --- | --- | --- | --- |
| error | missing-tensor | drafts/broken: layers.{0...3}.mlp.up&#95;proj.weight \
| the format requires it beside layers.{0...3}.mlp.down&#95;proj.weight | spec-convert inspect drafts/broken |
| error | wrong-shape | drafts/broken: model.safetensors: fc.weight \
| has shape &#91;64, 128&#93;, 100% of its rows: expected &#91;64, 192&#93; |  |
| warning | house-rule | drafts/broken: config.json | names no author |  |

5 errors, 1 warning in 2 checkpoints

"""


def one(finding: Finding, source: str = "a") -> Report:
    return Report(checked=(Checked(source=source, format=None, findings=(finding,)),))


def test_github_gets_one_workflow_command_for_each_folded_finding(report):
    assert RENDERERS["github"](report) == GOLDEN


def test_a_note_is_a_notice():
    note = Finding(rule="house-rule", level=Level.NOTE, where="config.json", message="is new")
    assert RENDERERS["github"](one(note)).startswith("::notice ")


def test_a_comma_or_colon_in_the_path_does_not_end_the_property():
    note = Finding(rule="house-rule", level=Level.NOTE, where="config.json", message="is new")
    assert ",file=b%2C line=9%3A%3A/config.json::" in RENDERERS["github"](one(note, source="b, line=9::"))


def test_the_step_summary_is_a_table_of_checkpoints_and_one_of_findings(report, tmp_path):
    write_step_summary(report, tmp_path / "summary.md")
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == SUMMARY


def test_the_step_summary_is_appended_to_what_is_there(report, tmp_path):
    path = tmp_path / "summary.md"
    path.write_text("earlier\n", encoding="utf-8")
    write_step_summary(report, path)
    assert path.read_text(encoding="utf-8") == f"earlier\n{SUMMARY}"


def test_a_clean_run_has_no_findings_to_list(tmp_path):
    path = tmp_path / "summary.md"
    clean = Checked(source="a", format="eagle", findings=(), reached=Depth.HEADERS, unified=True)
    write_step_summary(Report(checked=(clean,)), path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[4:] == [
        "| a | eagle | level headers | 0 | 0 | 0 | serves as it lies |",
        "",
        "no findings in 1 checkpoint",
        "",
    ]


def test_of_very_many_findings_the_summary_keeps_the_first(tmp_path):
    path = tmp_path / "summary.md"
    many = tuple(Finding(rule="r", level=Level.NOTE, where=f"w{at}", message="m" * 100) for at in range(ROWS + 5000))
    write_step_summary(Report(checked=(Checked(source="a", format=None, findings=many),)), path)
    text = path.read_text(encoding="utf-8")
    assert (text.count("| note | r |"), len(text) < 2**20) == (ROWS, True)
    assert "\nThe log has 5000 more.\n" in text


def test_a_summary_that_cannot_be_written_is_the_users_to_mend(report, tmp_path):
    with pytest.raises(UsageError, match=r"cannot write the step summary .*: Is a directory"):
        write_step_summary(report, tmp_path)


def test_an_empty_run_has_no_table(tmp_path):
    path = tmp_path / "summary.md"
    write_step_summary(Report(checked=()), path)
    assert path.read_text(encoding="utf-8") == "### spec-convert validate\n\nno findings in 0 checkpoints\n\n"


def test_a_message_cannot_leave_its_cell_or_make_markup(tmp_path):
    path = tmp_path / "summary.md"
    text = "a | b\n| c | <img src=x> [x](y) @someone `z` #1"
    write_step_summary(one(Finding(rule="r", level=Level.NOTE, where="w", message=text)), path)
    row = path.read_text(encoding="utf-8").splitlines()[8]
    assert (row.count("|"), [char for char in "<>[]@`\n" if char in row]) == (6, [])


def test_a_checkpoint_cannot_leave_its_cell_either(tmp_path):
    path = tmp_path / "summary.md"
    write_step_summary(Report(checked=(Checked(source="a | b\n| <img>", format="x | y", findings=()),)), path)
    row = path.read_text(encoding="utf-8").splitlines()[4]
    assert (row.count("|"), [char for char in "<>" if char in row]) == (8, [])
