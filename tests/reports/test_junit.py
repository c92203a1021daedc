"""The report as GitLab, Jenkins and Azure read it."""

from __future__ import annotations

from junitparser import JUnitXml

from spec_convert.findings import Finding, Level
from spec_convert.reports import RENDERERS, Checked, Report

GOLDEN = """\
<?xml version='1.0' encoding='utf-8'?>
<testsuites name="spec-convert">
  <testsuite name="drafts/broken" tests="3" failures="2" errors="0" skipped="0">
    <testcase classname="drafts/broken" name="missing-tensor">
      <failure type="error" message="layers.{0...3}.mlp.up_proj.weight: \
the format requires it beside layers.{0...3}.mlp.down_proj.weight">\
error: layers.{0...3}.mlp.up_proj.weight: the format requires it beside layers.{0...3}.mlp.down_proj.weight
  hint: spec-convert inspect drafts/broken</failure>
    </testcase>
    <testcase classname="drafts/broken" name="wrong-shape">
      <failure type="error" message="model.safetensors: fc.weight: \
has shape [64, 128], 100% of its rows: expected [64, 192]">\
error: model.safetensors: fc.weight: has shape [64, 128], 100% of its rows: expected [64, 192]</failure>
    </testcase>
    <testcase classname="drafts/broken" name="house-rule">
      <system-out>warning: config.json: names no author</system-out>
    </testcase>
  </testsuite>
  <testsuite name="org/clean" tests="1" failures="0" errors="0" skipped="0">
    <testcase classname="org/clean" name="no findings" />
  </testsuite>
</testsuites>"""


def test_junit_has_a_suite_for_each_checkpoint_and_a_case_for_each_rule(report):
    assert RENDERERS["junit"](report) == GOLDEN


def test_a_reader_of_junit_finds_every_checkpoint_and_what_it_failed(report):
    broken, clean = read(report)
    assert [suite.name for suite in (broken, clean)] == ["drafts/broken", "org/clean"]
    assert [case.name for case in broken if case.is_failure] == ["missing-tensor", "wrong-shape"]
    assert [case.name for case in broken if case.is_passed] == ["house-rule"]
    [failure] = next(case for case in broken if case.name == "wrong-shape").result
    assert failure.message == "model.safetensors: fc.weight: has shape [64, 128], 100% of its rows: expected [64, 192]"
    assert failure.text == f"error: {failure.message}"
    assert [(case.name, case.is_passed) for case in clean] == [("no findings", True)]


def test_a_reader_counts_the_cases_as_each_suite_says(report):
    for suite in read(report):
        said = suite.tests, suite.failures, suite.errors, suite.skipped
        suite.update_statistics()
        assert (suite.tests, suite.failures, suite.errors, suite.skipped) == said


def test_a_note_is_read_as_the_output_of_a_case_that_passed():
    note = Finding(rule="house-rule", level=Level.NOTE, where="config.json", message="is <new> & odd")
    [[case]] = read(Report(checked=(Checked(source="a", format="eagle", findings=(note,)),)))
    assert (case.is_passed, case.system_out) == (True, "note: config.json: is <new> & odd")


def read(report: Report) -> JUnitXml:
    return JUnitXml.fromstring(RENDERERS["junit"](report).encode())
