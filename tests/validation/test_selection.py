"""`apply`: rules left out and severities changed, and that nothing which was not looked at passes for clean."""

from __future__ import annotations

from typing import Any

import pytest

from spec_convert.errors import UsageError
from spec_convert.findings import Checked, Depth, Finding, Level, Report
from spec_convert.rules import RULES, found, sources
from spec_convert.validation.selection import NOT_LOOKED_AT, Selection, apply, matching

NOTE = found("rope-theta-absent", where="config.json", message="has none")
WARNING = found("format-forced", where="draft", message="fails on something")
SHAPE = found("wrong-shape", where="fc.weight", message="has shape [2]")
MISFIT = found("verifier-mismatch", where="verifier", message="is wider")
GONE = found("no-such-source", where="draft", message="is nowhere")
ALL = (NOTE, WARNING, SHAPE, MISFIT)


def report(*findings: Finding, missed: Depth | None = None, reached: Depth | None = Depth.HEADERS) -> Report:
    return Report(checked=(Checked(source="draft", format="eagle", findings=findings, reached=reached, missed=missed),))


def rules(found_in: Report) -> list[str]:
    return [finding.rule for checked in found_in.checked for finding in checked.findings]


def selection(**given: Any) -> Selection:
    return Selection(**{key: matching(value) if isinstance(value, list) else value for key, value in given.items()})


def test_nothing_selected_changes_nothing() -> None:
    before = report(*ALL)
    assert apply(before, Selection()) == before


def test_what_is_ignored_is_left_out() -> None:
    assert rules(apply(report(*ALL), selection(ignore=["wrong-shape", "rope-*"]))) == [
        "format-forced",
        "verifier-mismatch",
    ]


def test_only_what_is_selected_is_kept() -> None:
    assert rules(apply(report(*ALL), selection(select=["wrong-shape", "rope-*"]))) == [
        "rope-theta-absent",
        "wrong-shape",
    ]


def test_what_is_selected_and_ignored_is_left_out() -> None:
    assert rules(apply(report(*ALL), selection(select=["wrong-*", "verifier-*"], ignore=["verifier-mismatch"]))) == [
        "wrong-shape"
    ]


def test_a_severity_is_that_of_the_finding_and_off_leaves_it_out() -> None:
    severity = {"rope-theta-absent": Level.ERROR, "wrong-shape": Level.WARNING, "format-forced": None}
    after = apply(report(*ALL), Selection(severity=severity))
    assert [(finding.rule, finding.level) for finding in after.checked[0].findings] == [
        ("rope-theta-absent", "error"),
        ("wrong-shape", "warning"),
        ("verifier-mismatch", "error"),
    ]


@pytest.mark.parametrize(
    "chosen", [{"ignore": ["wrong-shape"]}, {"select": ["verifier-*"]}, {"severity": {"wrong-shape": Level.NOTE}}]
)
def test_errors_that_are_set_aside_are_named(chosen: dict[str, Any]) -> None:
    assert apply(report(*ALL), selection(**chosen)).checked[0].set_aside == ("wrong-shape",)


def test_what_is_raised_is_not_set_aside() -> None:
    after = apply(report(*ALL), selection(severity={"rope-theta-absent": Level.ERROR}))
    assert after.checked[0].set_aside == ()


@pytest.mark.parametrize(
    ("reached", "missed", "how"),
    [
        (Depth.TENSORS, Depth.FORWARD, "level forward was not looked at"),
        (Depth.HEADERS, Depth.HEADERS, "level headers was only looked at in part"),
        (None, Depth.HEADERS, "level headers was not looked at"),
    ],
)
def test_a_level_that_was_not_reached_does_not_pass_in_silence(reached: Depth, missed: Depth, how: str) -> None:
    after = apply(report(SHAPE, reached=reached, missed=missed), selection(ignore=["wrong-shape"]))
    [finding] = after.checked[0].findings
    assert (finding.rule, finding.level) == ("level-not-reached", "error")
    assert how in finding.message
    assert "because of wrong-shape, which this report leaves out" in finding.message


def test_where_an_error_is_left_it_says_enough() -> None:
    after = apply(report(*ALL, missed=Depth.FORWARD), selection(ignore=["wrong-shape"]))
    assert "level-not-reached" not in rules(after)


def test_where_all_was_looked_at_errors_may_be_left_out() -> None:
    assert rules(apply(report(SHAPE), selection(ignore=["wrong-shape"]))) == []


def test_each_checkpoint_is_judged_by_itself() -> None:
    two = Report(checked=report(SHAPE, missed=Depth.TENSORS).checked + report(MISFIT, missed=Depth.TENSORS).checked)
    assert rules(apply(two, selection(ignore=["wrong-shape"]))) == ["level-not-reached", "verifier-mismatch"]


@pytest.mark.parametrize("rule", sorted(NOT_LOOKED_AT))
def test_that_nothing_was_looked_at_cannot_be_left_out(rule: str) -> None:
    for chosen in ({"ignore": frozenset({rule})}, {"severity": {rule: Level.WARNING}}, {"severity": {rule: None}}):
        with pytest.raises(UsageError, match=f"`{rule}` cannot be left out"):
            Selection(**chosen)
    assert Selection(severity={rule: Level.ERROR})


def test_what_was_not_looked_at_is_every_rule_about_sources() -> None:
    assert {rule.code for rule in sources.RULES} < NOT_LOOKED_AT
    assert sources.OUT_OF_REACH < NOT_LOOKED_AT <= RULES.keys()


def test_selecting_other_rules_does_not_hide_a_source_that_is_not_there() -> None:
    assert rules(apply(report(GONE, reached=None, missed=Depth.HEADERS), selection(select=["wrong-shape"]))) == [
        "no-such-source"
    ]


def test_a_glob_stands_for_all_that_it_matches() -> None:
    assert matching(["hub-*", "wrong-shape"]) == {code for code in RULES if code.startswith("hub-")} | {"wrong-shape"}


@pytest.mark.parametrize("name", ["wrong-shap", "wrong-shape*s", "", "WRONG-SHAPE"])
def test_a_name_that_stands_for_no_rule_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(UsageError, match="there is no rule") as refused:
        matching([name])
    assert not name or name.isupper() or "did you mean `wrong-shape`?" in refused.value.hint
