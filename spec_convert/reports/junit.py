"""Findings for GitLab, Jenkins and Azure: JUnit XML, one suite a checkpoint and one test case a rule."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from spec_convert.findings import Checked, Finding, Report, errors
from spec_convert.reports.escape import one_line
from spec_convert.reports.fold import fold_findings


def render(report: Report) -> str:
    root = ET.Element("testsuites", name="spec-convert")
    for checked in report.checked:
        _add_suite(root, checked)
    ET.indent(root)
    xml: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return xml.decode("utf-8")


def _add_suite(root: ET.Element, checked: Checked) -> None:
    name = one_line(checked.source)
    by_rule: dict[str, list[Finding]] = {}
    for finding in fold_findings(checked.findings):
        by_rule.setdefault(finding.rule, []).append(finding)
    failures = sum(bool(errors(findings)) for findings in by_rule.values())
    # A checkpoint without findings is one test that passed: without it, CI systems would not list the checkpoint.
    cases = by_rule or {"no findings": []}
    suite = ET.SubElement(
        root, "testsuite", name=name, tests=str(len(cases)), failures=str(failures), errors="0", skipped="0"
    )
    for rule, findings in cases.items():
        _add_case(ET.SubElement(suite, "testcase", classname=name, name=rule), findings)


def _add_case(case: ET.Element, findings: list[Finding]) -> None:
    text = "\n".join(_line(finding) for finding in findings)
    fatal = errors(findings)
    if fatal:
        first = one_line(f"{fatal[0].where}: {fatal[0].message}")
        ET.SubElement(case, "failure", type="error", message=first).text = text
    elif findings:
        # Warnings and notes do not fail a run, so they do not fail a test.
        ET.SubElement(case, "system-out").text = text


def _line(finding: Finding) -> str:
    line = f"{finding.level}: {one_line(finding.where)}: {one_line(finding.message)}"
    return f"{line}\n  hint: {one_line(finding.hint)}" if finding.hint else line
