"""Evidence: what is required decides, what supports adds, what speaks against takes away; all of it in words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spec_convert.evidence import weigh

STATEMENTS = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.booleans(), max_size=5)


def test_something_required_that_does_not_hold_leaves_no_confidence() -> None:
    evidence = weigh(required={"a fusion": True, "a layer": False}, supporting={"an embedding": True})
    assert (evidence.confidence, evidence.nearness) == (0.0, 0.5)
    assert evidence.supports == ("a fusion", "an embedding")
    assert evidence.against == ("not: a layer",)


def test_all_that_is_required_and_nothing_else_asked_is_certain() -> None:
    assert weigh(required={"a fusion": True}).confidence == 1.0


def test_support_that_lacks_costs_up_to_half() -> None:
    assert weigh(required={"a": True}, supporting={"b": True, "c": False}).confidence == 0.75
    assert weigh(required={"a": True}, supporting={"b": False}).confidence == 0.5


def test_each_sign_against_halves_the_confidence_and_is_told() -> None:
    evidence = weigh(required={"a": True}, against={"odd bias": True, "odd norm": True, "not seen": False})
    assert evidence.confidence == 0.25
    assert evidence.against == ("odd bias", "odd norm")


@given(STATEMENTS, STATEMENTS, STATEMENTS)
def test_confidence_is_above_zero_exactly_when_all_that_is_required_holds(
    required: dict[str, bool], supporting: dict[str, bool], against: dict[str, bool]
) -> None:
    evidence = weigh(required=required, supporting=supporting, against=against)
    assert (evidence.confidence > 0) == all(required.values())
    assert 0 <= evidence.confidence <= 1
    assert 0 <= evidence.nearness <= 1


@given(STATEMENTS.filter(bool), STATEMENTS, st.data())
def test_one_more_thing_that_holds_never_makes_it_less_sure(
    required: dict[str, bool], supporting: dict[str, bool], data: st.DataObject
) -> None:
    before = weigh(required=required, supporting=supporting)
    name = data.draw(st.sampled_from(sorted(required)))
    after = weigh(required=required | {name: True}, supporting=supporting)
    assert after.confidence >= before.confidence
    assert after.nearness >= before.nearness
