"""Every rule of the catalogue can happen: a situation that is broken in one way reports it, the sound one does not."""

from __future__ import annotations

from importlib import import_module

import pytest

from spec_convert.cli import run
from spec_convert.findings import Level, errors
from spec_convert.rules import AREAS, RULES

from .trigger import Make, Trigger, Triggers

AREA_OF = {rule.code: area.__name__.rpartition(".")[2] for area in AREAS for rule in area.RULES}
TRIGGERS: dict[str, Triggers] = {
    area: import_module(f".triggers_{area}", __package__).TRIGGERS for area in sorted(set(AREA_OF.values()))
}
EVERY_RULE = pytest.mark.parametrize("code", RULES)


def trigger_of(code: str) -> Trigger:
    area = AREA_OF[code]
    if code not in TRIGGERS[area]:
        pytest.fail(f'nothing triggers `{code}`: add a function with @TRIGGERS.rule("{code}") to triggers_{area}.py')
    return TRIGGERS[area][code]


def is_well_written(hint: str) -> bool:
    """One line: a phrase without a full stop, or whole sentences."""
    return hint == " ".join(hint.split()) and (not hint.endswith(".") or hint[0].isupper())


@EVERY_RULE
def test_what_is_broken_is_found(code: str, make: Make) -> None:
    findings = trigger_of(code)(make, True)
    seen = [finding for finding in findings if finding.rule == code]
    assert seen, f"found instead: {[(f.rule, f.where, f.message) for f in findings]}"
    for finding in seen:
        assert finding.level is RULES[code].level
        assert finding.where
        assert finding.message
        assert is_well_written(finding.hint)
    assert {finding.rule for finding in findings if finding.level is not Level.NOTE} <= {code}, "broken in two ways"


@EVERY_RULE
def test_the_same_when_it_is_sound_is_not(code: str, make: Make) -> None:
    findings = trigger_of(code)(make, False)
    assert [finding for finding in findings if finding.rule == code] == []
    assert errors(findings) == []


@EVERY_RULE
def test_it_is_explained(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", code]) == 0
    rule, said = RULES[code], capsys.readouterr()
    assert all(sentence in said.out for sentence in (code, rule.level, rule.says, rule.why, rule.do))
    assert said.err == ""


@pytest.mark.parametrize("area", TRIGGERS)
def test_an_area_triggers_its_own_rules_and_no_others(area: str) -> None:
    assert sorted(code for code in TRIGGERS[area] if AREA_OF.get(code) != area) == []
