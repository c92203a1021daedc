"""The report as GitHub Actions reads it."""

from __future__ import annotations

from spec_convert.findings import Finding, Level
from spec_convert.reports import RENDERERS, Checked, Report
from spec_convert.reports.github import write_step_summary

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


def test_the_step_summary_is_a_table(report, tmp_path):
    write_step_summary(report, tmp_path / "summary.md")
    assert (tmp_path / "summary.md").read_text(encoding="utf-8") == SUMMARY


def test_the_step_summary_is_appended_to_what_is_there(report, tmp_path):
    path = tmp_path / "summary.md"
    path.write_text("earlier\n", encoding="utf-8")
    write_step_summary(report, path)
    assert path.read_text(encoding="utf-8") == f"earlier\n{SUMMARY}"


def test_a_clean_run_has_no_table(tmp_path):
    path = tmp_path / "summary.md"
    write_step_summary(Report(checked=()), path)
    assert path.read_text(encoding="utf-8") == "### spec-convert validate\n\nno findings in 0 checkpoints\n\n"


def test_a_message_cannot_leave_its_cell_or_make_markup(tmp_path):
    path = tmp_path / "summary.md"
    text = "a | b\n| c | <img src=x> [x](y) @someone `z` #1"
    write_step_summary(one(Finding(rule="r", level=Level.NOTE, where="w", message=text)), path)
    row = path.read_text(encoding="utf-8").splitlines()[4]
    assert (row.count("|"), [char for char in "<>[]@`\n" if char in row]) == (6, [])
