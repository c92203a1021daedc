"""A chart draws the numbers that it is given: to scale, with a value, a name and an explanation for each."""

from __future__ import annotations

import math
from importlib.resources import files
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_convert.reports.charts import (
    BOTTOM,
    LEFT,
    LONGEST,
    TOP,
    Axis,
    Series,
    bars,
    columns,
    legend,
    nice_ticks,
    percent,
)

HEIGHT = BOTTOM - TOP
HOSTILE = "</title></svg><script>alert(1)</script>"
SHARES = Axis(
    label="share", top=1.0, tick=lambda value: f"{100 * value:.0f}%", value=lambda value: f"{100 * value:.1f}%"
)
COUNTS = Axis(label="count", top=7, tick=str, value=str, whole=True)


def series(*values: float | None, name: str = "joint", mark: bool = False) -> Series:
    return Series(name=name, values=values, hover=[f"{name} {value}" for value in values], mark=mark)


def draw(*many: Series, axis: Axis = SHARES, title: str = "Shares") -> ET.Element:
    groups = [str(number) for number in range(len(many[0].values))]
    return columns(title, groups=groups, grouped_by="position", series=many, axis=axis)


def texts(svg: ET.Element, kind: str) -> list[str]:
    return [text.text or "" for text in svg.iter("text") if text.get("class") == kind]


def numbers(elements: list[ET.Element], attribute: str) -> list[float]:
    return [float(element.get(attribute, "nan").removesuffix("%")) for element in elements]


def test_columns_are_to_scale_and_stand_on_the_axis() -> None:
    drawn = list(draw(series(1.0, 0.5, 0.0)).iter("rect"))
    assert numbers(drawn, "height") == pytest.approx([HEIGHT, HEIGHT / 2, 0])
    assert [y + height for y, height in zip(numbers(drawn, "y"), numbers(drawn, "height"), strict=True)] == [BOTTOM] * 3


def test_marks_are_at_the_height_of_their_value() -> None:
    svg = draw(series(1.0, 0.5), series(0.75, 0.25, name="given", mark=True), series(0.5, 1.0, name="alpha", mark=True))
    assert numbers(list(svg.iter("circle")), "cy") == pytest.approx([TOP + 0.25 * HEIGHT, TOP + 0.75 * HEIGHT])
    diamonds = [nested for nested in svg.iter("svg") if nested.find("path") is not None]
    assert numbers(diamonds, "y") == pytest.approx([TOP + 0.5 * HEIGHT, TOP])


def test_every_number_has_its_value_and_tells_the_pointer_what_it_is() -> None:
    svg = draw(series(0.55, 0.29), series(0.6, 0.5, name="given", mark=True))
    assert texts(svg, "value") == ["55.0%", "29.0%", "60.0%", "50.0%"]
    told = [group.findtext("title") for group in svg.iter("g") if group.get("class", "").startswith("series-")]
    assert told == ["joint 0.55", "joint 0.29", "given 0.6", "given 0.5"]


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_a_missing_number_is_a_gap(missing: float | None) -> None:
    svg = draw(series(0.5, missing, 0.25), series(missing, 0.5, 0.5, mark=True))
    assert len(list(svg.iter("rect"))) == len(list(svg.iter("circle"))) == 2
    assert texts(svg, "value") == ["50.0%", "25.0%", "50.0%", "50.0%"]
    bar = bars("b", names=["one", "two", "three"], series=series(1.0, missing, 0.5), axis=SHARES)
    assert len(list(bar.iter("rect"))) == 2


def test_axes_are_named_and_numbered() -> None:
    svg = draw(series(0.5, 0.25))
    assert svg.get("role") == "img"
    assert svg[0].tag == "title"
    assert svg[0].text == "Shares"
    assert texts(svg, "axis") == ["share", "position"]
    assert texts(svg, "tick") == ["0%", "20%", "40%", "60%", "80%", "100%", "0", "1"]


@given(st.integers(1, 4), st.integers(1, 20))
def test_no_two_columns_overlap_and_none_leaves_the_chart(many: int, groups: int) -> None:
    drawn = list(draw(*(series(*[0.5] * groups) for _ in range(many))).iter("rect"))
    spans = sorted((x, x + width) for x, width in zip(numbers(drawn, "x"), numbers(drawn, "width"), strict=True))
    edges = [edge for span in spans for edge in span]
    assert len(spans) == many * groups
    assert edges == sorted(edges)
    assert edges[0] >= LEFT
    assert edges[-1] <= 100


def test_each_column_stands_over_the_name_of_its_group() -> None:
    svg = draw(series(0.5, 0.5, 0.5))
    middles = [
        x + width / 2
        for x, width in zip(numbers(list(svg.iter("rect")), "x"), numbers(list(svg.iter("rect")), "width"), strict=True)
    ]
    names = [text for text in svg.iter("text") if text.get("class") == "tick" and text.text in {"0", "1", "2"}]
    assert numbers(names, "x") == pytest.approx(middles, abs=0.01)


def test_bars_are_to_scale_and_leave_room_for_their_values() -> None:
    svg = bars(
        "Speed",
        names=["with", "without"],
        series=series(40.0, 10.0),
        axis=Axis(label="t/s", top=40.0, tick=str, value=str),
    )
    assert numbers(list(svg.iter("rect")), "width") == pytest.approx([LONGEST, LONGEST / 4])
    assert texts(svg, "name") == ["with", "without"]
    assert texts(svg, "value") == ["40.0", "10.0"]
    ticks = [text for text in svg.iter("text") if text.get("class") == "tick"]
    places = [LONGEST * float(text.text or "nan") / 40 for text in ticks]
    assert numbers(ticks, "x") == pytest.approx(places)
    assert len(ticks) > 2


def test_series_are_told_apart_by_form_as_well_as_by_colour() -> None:
    svg = draw(series(0.5), series(0.5, mark=True), series(0.5, mark=True))
    key = legend([series(0.5, name="a"), series(0.5, name="b", mark=True), series(0.5, name="c", mark=True)])
    assert ["".join(item.itertext()) for item in key.iter("li")] == ["a", "b", "c"]
    for shape, number in {"rect": 1, "circle": 2, "path": 3}.items():
        (drawn,) = (group for group in svg.iter("g") if group.get("class") == f"series-{number}")
        (shown,) = (swatch for swatch in key.iter("svg") if swatch.get("class") == f"series-{number}")
        assert [len(list(place.iter(shape))) for place in (drawn, shown)] == [1, 1]


def test_hostile_text_stays_text_and_the_svg_is_xml() -> None:
    hostile = Series(name=HOSTILE, values=[0.5], hover=[HOSTILE])
    for svg in (
        columns(HOSTILE, groups=[HOSTILE], grouped_by=HOSTILE, series=[hostile], axis=SHARES),
        bars(HOSTILE, names=[HOSTILE], series=hostile, axis=SHARES),
    ):
        read = ET.fromstring(ET.tostring(svg))
        assert read[0].text == HOSTILE
        assert {one.tag for one in read.iter()} <= {"svg", "title", "g", "line", "rect", "text"}


@given(st.floats(1e-6, 1e9))
def test_ticks_are_few_round_and_reach_the_top(top: float) -> None:
    ticks = nice_ticks(top)
    step = ticks[1]
    assert ticks[0] == 0
    assert 4 <= len(ticks) <= 10
    assert ticks[-2] < top <= ticks[-1] * (1 + 1e-6)
    assert f"{step:.6e}"[0] in "125"
    assert ticks == pytest.approx([step * number for number in range(len(ticks))])


@given(st.integers(1, 10**9))
def test_counts_have_whole_ticks(top: int) -> None:
    ticks = nice_ticks(top, whole=True)
    assert all(tick == int(tick) for tick in ticks)
    assert len(set(ticks)) == len(ticks)
    assert ticks[-1] >= top


@pytest.mark.parametrize("top", [0, -1, math.nan, math.inf])
def test_nothing_to_draw_still_has_an_axis(top: float) -> None:
    assert nice_ticks(top) == [0.0, 1.0]
    assert draw(series(0, 0), axis=Axis(label="count", top=top, tick=str, value=str)).find("g") is not None


def test_shares_are_written_short() -> None:
    assert [percent(share) for share in (0, 100, 12.5, 1 / 3)] == ["0%", "100%", "12.5%", "0.333%"]


def test_counts_are_drawn_against_whole_numbers() -> None:
    svg = draw(series(7, 2), axis=COUNTS)
    assert texts(svg, "tick")[:-2] == ["0.0", "2.0", "4.0", "6.0", "8.0"]
    assert numbers(list(svg.iter("rect")), "height") == pytest.approx([HEIGHT * 7 / 8, HEIGHT / 4])


def test_the_page_has_a_rule_for_every_room_that_a_chart_may_ask_for() -> None:
    css = files("spec_convert.reports").joinpath("page.css").read_text(encoding="utf-8")
    asked = {(draw(series(*[0.5] * groups)).get("class") or "").split()[1] for groups in range(1, 60)}
    assert "crowded" in asked
    assert len(asked) > 10
    assert [room for room in asked if f".{room} .value {{ display: none; }}" not in css] == []
