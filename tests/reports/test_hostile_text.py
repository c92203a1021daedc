"""Tensor names and messages come from strangers' files: whatever they hold, no renderer breaks or is led astray."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from spec_convert.findings import Finding, Level
from spec_convert.reports import RENDERERS, Checked, Report
from spec_convert.reports.escape import encodable, one_line
from spec_convert.reports.schema import ValidationReport

# Everything, lone surrogates and control characters included, and more of what means something to somebody.
ACTIVE = st.sampled_from(
    ["\n::error::", "\r\n", "##[set-env name=A]b", "::", "%0A", "\x1b[31m", "\x00", "]]>", "\ud800"]
)
TEXT = st.lists(st.text(st.characters(categories=["L", "N", "P", "Z", "C", "S"])) | ACTIVE).map("".join)


@st.composite
def reports(draw: st.DrawFn) -> Report:
    finding = st.builds(
        Finding, rule=st.just("house-rule"), level=st.sampled_from(Level), where=TEXT, message=TEXT, hint=TEXT
    )
    checked = st.builds(
        Checked, source=TEXT, format=st.just("eagle"), findings=st.lists(finding, min_size=1, max_size=2).map(tuple)
    )
    return Report(checked=(draw(checked),))


def messages(report: Report) -> list[str]:
    return [finding.message for checked in report.checked for finding in checked.findings]


@given(reports())
def test_every_renderer_writes_text_that_utf8_can_hold(report):
    assert all(render(report).encode("utf-8") for render in RENDERERS.values())


@given(reports())
def test_json_keeps_every_message(report):
    document = ValidationReport.model_validate_json(RENDERERS["json"](report))
    assert [finding.message for finding in document.findings] == [encodable(text) for text in messages(report)]


@given(reports())
def test_sarif_keeps_every_message(report):
    results = json.loads(RENDERERS["sarif"](report))["runs"][0]["results"]
    read = [result["message"]["text"].replace("{{", "{").replace("}}", "}") for result in results]
    assert all(
        encodable(text).replace("](", "] (") in shown for text, shown in zip(messages(report), read, strict=True)
    )


@given(reports())
def test_junit_stays_well_formed_and_keeps_every_message(report):
    shown = "\n".join(ET.fromstring(RENDERERS["junit"](report)).itertext())
    assert all(one_line(text) in shown for text in messages(report))


@given(reports())
def test_text_keeps_to_one_line_a_finding_one_a_hint_and_one_a_checkpoint(report):
    hints = sum(bool(finding.hint) for checked in report.checked for finding in checked.findings)
    lines = RENDERERS["text"](report).splitlines()
    assert len(lines) <= len(messages(report)) + hints + len(report.checked) + 1
    assert all(line.isprintable() for line in lines)


@given(reports())
def test_no_message_can_start_a_workflow_command(report):
    *commands, count = RENDERERS["github"](report).splitlines()
    assert len(commands) <= len(messages(report))
    assert all(line.startswith(("::error title=", "::warning title=", "::notice title=")) for line in commands)
    assert count == report.in_words


@given(reports())
def test_github_reads_the_message_as_it_was_written(report):
    *commands, _ = RENDERERS["github"](report).splitlines()
    read = [line.split("::", 2)[2].replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%") for line in commands]
    assert all(any(one_line(text) in shown for shown in read) for text in messages(report))


@given(TEXT, TEXT)
def test_a_property_can_neither_end_its_command_nor_add_another_property(source, where):
    finding = Finding(rule="house-rule", level=Level.NOTE, where=where, message="m")
    report = Report(checked=(Checked(source=source, format=None, findings=(finding,)),))
    properties = RENDERERS["github"](report).split("::")[1].removeprefix("notice ").split(",")
    assert [text.partition("=")[0] for text in properties] == ["title", "file"]
