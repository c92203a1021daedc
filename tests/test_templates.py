"""Names with holes: what is matched comes back when it is filled in, and whether two can collide is decided exactly."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spec_convert.templates import MapError, Segment, Template

# Small alphabets and small steps: most pairs of templates then nearly collide, which is where mistakes would be.
WORDS = ("a", "b", "0", "1", "2", "5", "07")
KINDS = ("", ":a", ":a|b", ":b|5", ":int", ":1+", ":3+", ":2n", ":2n+1", ":3n", ":3n+2", ":6n+4", "...")
SEGMENTS = st.sampled_from(WORDS) | st.sampled_from([f"HOLE{kind}" for kind in KINDS])
TEXTS = (*WORDS, "3", "4", "6", "8", "9", "10", "x", "-1", "")


@st.composite
def templates(draw: st.DrawFn, longest: int = 4) -> Template:
    segments = draw(st.lists(SEGMENTS, min_size=1, max_size=longest))
    named = [
        _hole(segment, "hijk"[at]) if segment.startswith("HOLE") else segment for at, segment in enumerate(segments)
    ]
    return Template(".".join(named))


def _hole(segment: str, name: str) -> str:
    return f"{{{name}{segment.removeprefix('HOLE')}}}"


@given(st.data(), templates())
def test_what_the_holes_stand_for_fills_the_template_back_to_the_name(data: st.DataObject, template: Template) -> None:
    name = ".".join(data.draw(_texts(segment), label=str(segment)) for segment in template.segments)
    values = template.match(name)
    assert values is not None
    assert template.fill(values) == name


def _texts(segment: Segment) -> st.SearchStrategy[str]:
    accepted = [text for text in TEXTS if segment.accepts(text)]
    one = st.sampled_from(accepted)
    return st.lists(one, min_size=1, max_size=3).map(".".join) if segment.rest else one


@given(st.data(), templates())
def test_what_fills_a_template_is_what_its_holes_stand_for(data: st.DataObject, template: Template) -> None:
    values = {hole: data.draw(_texts(segment), label=hole) for hole, segment in template.holes.items()}
    found = template.match(template.fill(values))
    assert found is not None
    if any(segment.rest for segment in template.holes.values()):  # then the same name may be cut in several ways
        assert template.fill(found) == template.fill(values)
    else:
        assert found == values


@given(templates(), templates())
@example(Template("{h...}.a"), Template("a.{h...}"))
@example(Template("a.b"), Template("{h...}"))
@example(Template("{h...}.a.{i...}"), Template("b.a.a.b"))
@example(Template("{h:3n}"), Template("{h:3n+2}"))
@example(Template("{h:2n+1}"), Template("{h:6n+4}"))
def test_a_witness_is_a_name_that_both_templates_match(one: Template, other: Template) -> None:
    witness = one.witness(other)
    assert (witness is None) == (other.witness(one) is None)
    if witness is not None:
        assert one.match(witness) is not None
        assert other.match(witness) is not None


@given(templates(longest=2), templates(longest=2))
def test_without_a_witness_no_name_is_shared(one: Template, other: Template) -> None:
    if one.witness(other) is None:
        words = [*WORDS, "x", *map(str, range(14))]
        for length in (1, 2, 3):
            for name in map(".".join, product(words, repeat=length) if length < 3 else product("ab05x", repeat=3)):
                assert one.match(name) is None or other.match(name) is None, name


@given(start=st.integers(0, 40), step=st.integers(1, 12), other_start=st.integers(0, 40), other_step=st.integers(1, 12))
def test_two_number_sequences_collide_exactly_when_they_share_a_number(
    start: int, step: int, other_start: int, other_step: int
) -> None:
    shared = set(range(start, 400, step)) & set(range(other_start, 400, other_step))
    witness = Template(f"{{i:{step}n+{start}}}").witness(Template(f"{{i:{other_step}n+{other_start}}}"))
    assert (witness is not None) == bool(shared)


@pytest.mark.parametrize("name", ["xfc.weight", "fc.weightx", "a.fc.weight", "fc.weight.a", "fc", "fc.weight\n", ""])
def test_only_the_whole_name_is_matched(name: str) -> None:
    assert Template("fc.weight").match(name) is None
    assert Template("fc.{p:weight}").match(name) is None


def test_a_dot_in_a_template_is_a_dot_and_no_wildcard() -> None:
    assert Template("fc.weight").match("fcxweight") is None


@pytest.mark.parametrize(
    ("kind", "accepted", "rejected"),
    [
        ("int", ["0", "7", "10"], ["-1", "01", "1.", "x", "", "1e3", "½", "٣", " 1", "+1"]),
        ("1+", ["1", "2", "99"], ["0", "01"]),
        ("3n", ["0", "3", "300"], ["1", "2", "4"]),
        ("3n+2", ["2", "5", "8"], ["0", "1", "3", "-1"]),
        ("gate|up", ["gate", "up"], ["gateup", "gate|up", "Gate", "down"]),
    ],
)
def test_a_hole_accepts_what_its_kind_says(kind: str, accepted: list[str], rejected: list[str]) -> None:
    template = Template(f"layers.{{i:{kind}}}.w")
    assert [text for text in accepted if template.match(f"layers.{text}.w") is None] == []
    assert [text for text in rejected if template.match(f"layers.{text}.w") is not None] == []


def test_a_hole_stands_for_one_segment_and_rest_for_one_or_more() -> None:
    assert Template("a.{x}.z").match("a.b.c.z") is None
    assert Template("a.{x...}.z").match("a.b.c.z") == {"x": "b.c"}
    assert Template("a.{x...}.z").match("a.z") is None


def test_a_number_of_thousands_of_digits_is_no_layer() -> None:
    assert Template("layers.{i:int}.w").match(f"layers.{'9' * 10_000}.w") is None


@pytest.mark.parametrize(
    "text",
    [
        "a..b",
        "",
        ".a",
        "a.",
        "x{i}",
        "{i}x",
        "{I}",
        "{i:int",
        "i}",
        "{i...:int}",
        "{i}.{i}",
        "{p:a|}",
        "{p:a.b|c}",
        "{}",
    ],
)
def test_a_malformed_template_is_refused(text: str) -> None:
    with pytest.raises(MapError):
        Template(text).holes  # noqa: B018  parsing is what is tried
