"""The report as GitLab, Jenkins and Azure read it."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from spec_convert.reports import RENDERERS

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


def test_the_numbers_of_a_suite_are_those_of_its_cases(report):
    for suite in ET.fromstring(RENDERERS["junit"](report)):
        counted = (len(suite.findall("testcase")), len(suite.findall("testcase/failure")))
        assert counted == (int(suite.attrib["tests"]), int(suite.attrib["failures"]))
