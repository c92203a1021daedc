"""A line chart draws the numbers that it is given: to scale, with gaps where there are none, and inside its axes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib.resources import files
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_convert.reports.charts import BOTTOM, LEFT, TOP
from spec_convert.reports.lines import (
    ACROSS,
    COLOURS,
    DASHES,
    Dot,
    Flag,
    Line,
    Scale,
    line_legend,
    lines,
    spans_decades,
)

HEIGHT = BOTTOM - TOP
HOSTILE = "</title></svg><script>alert(1)</script>"
PLAIN = Scale(label="loss", tick="{:g}".format)
NUMBERS = st.one_of(st.none(), st.floats())


def draw(
    *series: Line, places: Sequence[float] = (10, 20, 40), scale: Scale = PLAIN, flags: Sequence[Flag] = ()
) -> ET.Element:
    hover = [f"at {place}" for place in places]
    return lines("Loss", places=places, hover=hover, along="step", series=series, scale=scale, flags=flags)


def line(*values: float | None, dots: Sequence[Dot] = ()) -> Line:
    return Line(name="one", values=values, dots=dots)


def of_class(svg: ET.Element, name: str) -> list[ET.Element]:
    return [one for one in svg.iter() if (one.get("class") or "").split()[:1] == [name]]


def points(path: ET.Element) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([-\d.e]+) ([-\d.e]+)", path.get("d", ""))]


def ticks(svg: ET.Element) -> list[str]:
    return [text.text or "" for group in svg.iter("g") for text in group.findall("text") if text.get("class") == "tick"]


def test_a_line_is_to_scale_in_both_directions() -> None:
    (path,) = of_class(draw(line(10.0, 5.0, 0.0)), "line")
    assert points(path) == [(ACROSS / 4, TOP), (ACROSS / 2, TOP + HEIGHT / 2), (ACROSS, BOTTOM)]


def test_lines_are_stretched_to_the_width_and_their_strokes_are_not() -> None:
    (plot,) = of_class(draw(line(1, 2, 3)), "plot")
    assert (plot.get("viewBox"), plot.get("preserveAspectRatio")) == (f"0 0 {ACROSS:g} {BOTTOM:g}", "none")
    assert (plot.get("x"), plot.get("width")) == (f"{LEFT:g}%", f"{100 - LEFT:g}%")
    css = files("spec_convert.reports").joinpath("page.css").read_text(encoding="utf-8")
    assert re.search(r"\.line[^}]*vector-effect: non-scaling-stroke", css)


@pytest.mark.parametrize("missing", [None, math.nan, math.inf, 1e300])
def test_a_number_that_is_missing_breaks_the_line_and_one_alone_is_a_point(missing: float | None) -> None:
    svg = draw(line(10.0, 5.0, missing, 5.0), places=(1, 2, 3, 4))
    (path,), (point,) = of_class(svg, "line"), of_class(svg, "point")
    assert path.get("d") == f"M250 {TOP:g}L500 {TOP + HEIGHT / 2:g}"
    assert (point.get("cx"), float(point.get("cy", ""))) == ("100%", TOP + HEIGHT / 2)


def test_the_band_goes_from_the_lowest_to_the_highest_of_what_a_point_stands_for() -> None:
    spread = Line(name="one", values=[5, 6, None], low=[0, 5, None], high=[10, 10, None])
    (band,) = of_class(draw(spread), "band")
    middle = TOP + HEIGHT / 2
    assert points(band) == [(250, TOP), (500, TOP), (500, middle), (250, BOTTOM)]
    assert of_class(draw(line(1, 2, 3)), "band") == []


def test_dots_and_flags_are_at_their_places_and_tell_what_they_are() -> None:
    dots = [Dot(place=40, value=10.0, hover="held out"), Dot(place=20, value=math.nan, hover="nothing")]
    svg = draw(line(0.0, 5.0, 10.0, dots=dots), flags=[Flag(place=20, hover="left out")])
    (ring,) = of_class(svg, "ring")
    assert (ring.get("cx"), float(ring.get("cy", ""))) == ("100%", TOP)
    (flag,) = of_class(svg, "flag")
    assert flag.find("svg").get("x") == f"{LEFT + (100 - LEFT) / 2:g}%"  # type: ignore[union-attr]
    told = [title.text for title in svg.iter("title")]
    assert told == ["Loss", "at 10", "at 20", "at 40", "held out", "left out"]


def test_the_pointer_is_told_what_is_nearest_everywhere() -> None:
    reach = of_class(draw(line(1, 2, 3)), "reach")
    spans = [(float(one.get("x", "")[:-1]), float(one.get("width", "")[:-1])) for one in reach]
    assert spans[0][0] == LEFT
    assert sum(width for _, width in spans) == pytest.approx(100 - LEFT, abs=0.01)
    for (x, width), (following, _) in pairwise(spans):
        assert x + width == pytest.approx(following, abs=0.01)


def test_the_axis_of_values_begins_at_its_base_or_below_what_is_lowest() -> None:
    assert ticks(draw(line(1.2, 2.4, 1.9), scale=Scale(label="tau", tick="{:g}".format, base=1)))[0] == "1"
    assert ticks(draw(line(3, 4, 5))) == ["0", "1", "2", "3", "4", "5"]
    assert ticks(draw(line(-3, 4, 5)))[0] == "-4"


def test_powers_of_ten_have_the_same_distance() -> None:
    svg = draw(line(1.0, 10.0, 100.0), scale=Scale(label="norm", tick="{:g}".format, log=True))
    assert ticks(svg) == ["1", "10", "100"]
    (path,) = of_class(svg, "line")
    assert [y for _, y in points(path)] == [BOTTOM, TOP + HEIGHT / 2, TOP]
    wide = draw(line(1e-9, 1.0, 1e12), scale=Scale(label="norm", tick="{:g}".format, log=True))
    assert len(ticks(wide)) <= 7


def test_only_what_has_logarithms_and_needs_them_is_drawn_by_them() -> None:
    assert spans_decades([0.1, 40.0])
    assert not spans_decades([30.0, 7.0])
    assert not spans_decades([0.0, 100.0])
    assert not spans_decades([-1.0, 100.0])
    assert not spans_decades([])


@given(
    st.lists(st.tuples(st.integers(0, 2**63), NUMBERS, NUMBERS), max_size=12),
    st.booleans(), st.floats(-10, 10),
)  # fmt: skip
def test_whatever_the_numbers_are_nothing_leaves_the_axes(
    rows: list[tuple[int, float | None, float | None]], log: bool, base: float
) -> None:
    places = sorted(place for place, *_ in rows)
    ones, others = [one for _, one, _ in rows], [one for *_, one in rows]
    series = [Line(name="a", values=ones), Line(name="b", values=others, low=ones, high=others)]
    numbers = [number for one in series for number in one.numbers()]
    scale = Scale(label="x", tick=str, base=base, log=log and spans_decades(numbers))
    svg = draw(*series, places=places, scale=scale)
    for path in [*of_class(svg, "line"), *of_class(svg, "band")]:
        for x, y in points(path):
            assert 0 <= x <= ACROSS
            assert TOP - 0.1 <= y <= BOTTOM + 0.1
    assert 2 <= len(ticks(svg)) <= 8


@given(st.integers(1, 10**9))
def test_the_names_along_the_foot_are_few_enough_for_a_narrow_page(last: int) -> None:
    svg = draw(line(1, 2), places=(0, last))
    names = [text.text or "" for text in svg.findall("text") if text.get("class") == "tick"]
    assert names[0] == "0"
    assert len(names) > 1 or last == 1
    assert sum(map(len, names)) <= 40


def test_many_lines_are_told_apart_by_form_as_well_as_by_colour() -> None:
    many = [Line(name=f"position {number + 1}", values=[number, 1, 2]) for number in range(COLOURS * DASHES)]
    key = line_legend(many, dots="held out")
    shown = [(svg.get("class"), path.get("class")) for svg in key.iter("svg") for path in svg.findall("path")]
    assert len(set(shown)) == COLOURS * DASHES
    assert ["".join(item.itertext()) for item in key.iter("li")][-2:] == [many[-1].name, "held out"]
    drawn = [(g.get("class"), path.get("class")) for g in draw(*many).iter("g") for path in g.findall("path")]
    assert drawn == shown
    css = files("spec_convert.reports").joinpath("page.css").read_text(encoding="utf-8")
    assert all(css.count(f"--series-{number + 1}: ") == 2 for number in range(COLOURS)), "in the light and in the dark"
    assert all(f".dash-{number + 1} " in css for number in range(1, DASHES)), "the first is a whole line"


def test_hostile_text_stays_text_and_the_svg_is_xml() -> None:
    hostile = Line(name=HOSTILE, values=[1.0], dots=[Dot(place=1, value=1, hover=HOSTILE)])
    svg = lines(
        HOSTILE, places=[1], hover=[HOSTILE], along=HOSTILE, series=[hostile], scale=Scale(label=HOSTILE, tick=str),
        flags=[Flag(place=1, hover=HOSTILE)],
    )  # fmt: skip
    assert ET.fromstring(ET.tostring(svg))[0].text == HOSTILE
    assert {one.tag for one in svg.iter()} <= {"svg", "title", "g", "line", "path", "rect", "circle", "text"}
