"""Line charts as SVG: numbers along a count, with the range that a mean stands for, and dots of single measurements.

Places are given as in `charts.py`. A path takes no shares of a width, so lines lie in an svg of their own: it is
stretched to the width of the chart, and its strokes keep theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, isfinite, log10
from typing import TypeGuard

from spec_convert.reports.charts import BOTTOM, HEIGHT, LEFT, TOP, nice_ticks, percent
from spec_convert.reports.markup import Element, element

COLOURS, DASHES = 8, 4  # that the page has a class for
ACROSS = 1000.0  # what lines call the whole width
LEVELS = 5  # at most, between the lowest and the highest tick
LETTERS = 34  # of all names along the foot: they must not touch on a narrow page
FLAG = "M0 1 L5 9 L-5 9 Z"
EDGE = 96.0  # percent: a name that begins to the right of it would leave the chart
ALIKE = 1e-9  # what is nearer to each other than this share of it
HUGE = 1e30  # no scale has room for it beside anything else

Number = float | None  # None, what is not finite, and what is huge leaves a gap


def _shown(number: Number) -> TypeGuard[float]:
    return number is not None and isfinite(number) and abs(number) < HUGE


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One measurement beside a line."""

    place: float
    value: float
    hover: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """Something that happened at a place, marked at the foot of the chart."""

    place: float
    hover: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A number for each place. ``low`` and ``high``: the range that it is the mean of; empty where it is none."""

    name: str
    values: Sequence[Number]
    low: Sequence[Number] = ()
    high: Sequence[Number] = ()
    dots: Sequence[Dot] = ()

    def numbers(self) -> Iterator[float]:
        every = (*self.values, *self.low, *self.high, *(dot.value for dot in self.dots))
        yield from filter(_shown, every)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The axis of values: from ``base``, or what lies below it, to what is highest. ``log``: by powers of ten."""

    label: str
    tick: Callable[[float], str]
    base: float = 0.0
    log: bool = False


@dataclass(frozen=True, slots=True)
class _Heights:
    """Where values lie, from the lowest tick at the bottom to the highest at the top."""

    ticks: Sequence[float]
    log: bool

    def at(self, value: float) -> float:
        low, high = self._along(self.ticks[0]), self._along(self.ticks[-1])
        return round(BOTTOM - (BOTTOM - TOP) * (self._along(value) - low) / (high - low), 2)

    def _along(self, value: float) -> float:
        return log10(value) if self.log else value


def lines(  # noqa: PLR0913  what a chart is made of, each by name
    title: str, *, places: Sequence[float], hover: Sequence[str], along: str, series: Sequence[Line], scale: Scale,
    flags: Sequence[Flag] = (),
) -> Element:  # fmt: skip
    """``hover``: what the pointer is told, one a place. ``along``: what the places count, from 0."""
    numbers = [number for line in series for number in line.numbers()]
    heights = _Heights(_ticks(numbers, scale), log=scale.log and bool(numbers))
    known = [*places, *(dot.place for line in series for dot in line.dots), *(flag.place for flag in flags)]
    last = max(known, default=0) or 1.0
    svg = element("svg", element("title", title), role="img", class_="chart", width="100%", height=HEIGHT)
    svg.append(_text(scale.label, "0", 12, "axis"))
    svg.extend(_level(tick, heights, scale) for tick in heights.ticks)
    svg.append(_drawn(places, series, heights, last))
    svg.extend(_reach(places, hover, last))
    for number, line in enumerate(series):
        svg.extend(_alone(places, line, number, heights, last))
        svg.extend(_ring(dot, number, heights, last) for dot in line.dots if _shown(dot.value))
    svg.extend(_flag(flag, last) for flag in flags)
    for tick in _few(nice_ticks(last, whole=True), last):
        share = _share(tick, last)
        svg.append(_text(_name(tick), percent(share), BOTTOM + 22, "tick", "middle" if share < EDGE else "end"))
    svg.append(_text(along, percent(LEFT + (100 - LEFT) / 2), BOTTOM + 40, "axis", "middle"))
    return svg


def line_legend(series: Sequence[Line], *, dots: str = "") -> Element:
    """The series and how each is drawn. ``dots``: what the rings are, where there are some."""
    items = []
    for number, line in enumerate(series):
        key = element("svg", width=26, height=14, aria_hidden="true", class_=_colour(number))
        key.append(element("path", class_=f"line {_dash(number)}", d="M1 7H25"))
        items.append(element("li", key, line.name))
    if dots:
        key = element("svg", width=14, height=14, aria_hidden="true", class_="others")
        key.append(element("circle", class_="ring", cx=7, cy=7, r=4.5))
        items.append(element("li", key, dots))
    return element("ul", *items, class_="legend")


def spans_decades(numbers: Sequence[float]) -> bool:
    """Whether small numbers could not be told apart beside the large ones, and all have a logarithm."""
    return bool(numbers) and min(numbers) > 0 and max(numbers) / min(numbers) >= 50


def _ticks(numbers: Sequence[float], scale: Scale) -> list[float]:
    if scale.log and numbers:
        return _decades(min(numbers), max(numbers))
    low, high = min([scale.base, *numbers]), max([scale.base, *numbers])
    size = max(abs(low), abs(high))
    if high - low <= max(ALIKE * size, 1 / HUGE):
        high = low + (size if size > 1 / HUGE else 1.0)
    step = _step(high - low)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [float(f"{step * number:.12g}") for number in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    first = floor(log10(low) + 1e-9)
    last = max(ceil(log10(high) - 1e-9), first + 1)
    step = ceil((last - first) / LEVELS)
    return [10.0**power for power in range(first, last + step, step)]


def _step(span: float) -> float:
    """1, 2 or 5 times a power of ten, of which few make up the span."""
    decade = 10.0 ** floor(log10(span / LEVELS))
    return next(step for factor in (1, 2, 5, 10) if span / (step := decade * factor) <= LEVELS * (1 + 1e-9))


def _drawn(places: Sequence[float], series: Sequence[Line], heights: _Heights, last: float) -> Element:
    svg = element(
        "svg", class_="plot", x=percent(LEFT), y=0, width=percent(100 - LEFT), height=BOTTOM,
        viewBox=f"0 0 {ACROSS:g} {BOTTOM:g}", preserveAspectRatio="none", overflow="visible",
    )  # fmt: skip
    xs = [round(ACROSS * place / last, 2) for place in places]
    for number, line in enumerate(series):
        drawn = element("g", class_=_colour(number))
        if line.low and line.high and (band := _band(xs, line, heights)):
            drawn.append(element("path", class_="band", d=band))
        if path := _path(xs, line.values, heights):
            drawn.append(element("path", class_=f"line {_dash(number)}", d=path))
        svg.append(drawn)
    return svg


def _path(xs: Sequence[float], values: Sequence[Number], heights: _Heights) -> str:
    runs = _runs(xs, values, heights)
    return " ".join("M" + "L".join(f"{x:g} {y:g}" for x, y in run) for run in runs if len(run) > 1)


def _alone(places: Sequence[float], line: Line, number: int, heights: _Heights, last: float) -> Iterator[Element]:
    """A number between two gaps, which no line leads to."""
    for run in _runs(places, line.values, heights):
        if len(run) == 1:
            ((place, y),) = run
            yield element("circle", class_=f"point {_colour(number)}", cx=percent(_share(place, last)), cy=y, r=2.5)


def _band(xs: Sequence[float], line: Line, heights: _Heights) -> str:
    """A closed shape for each stretch without a gap."""
    both = [_shown(low) and _shown(high) for low, high in zip(line.low, line.high, strict=True)]
    lows, highs = (
        _runs(xs, [number if known else None for number, known in zip(edge, both, strict=True)], heights)
        for edge in (line.low, line.high)
    )
    edges = zip(highs, lows, strict=True)
    return " ".join(
        "M" + "L".join(f"{x:g} {y:g}" for x, y in [*above, *reversed(below)]) + "Z" for above, below in edges
    )


def _runs(xs: Sequence[float], values: Sequence[Number], heights: _Heights) -> list[list[tuple[float, float]]]:
    """The stretches of places whose number is known."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, value in zip(xs, values, strict=True):
        if _shown(value):
            runs[-1].append((x, heights.at(value)))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _reach(places: Sequence[float], hover: Sequence[str], last: float) -> Iterator[Element]:
    """All that is nearer to a place than to the others, for the pointer."""
    middles = [(one + other) / 2 for one, other in pairwise(places)]
    edges = [0.0, *middles, last] if places else []
    for (left, right), told in zip(pairwise(edges), hover, strict=True):
        x, width = percent(_share(left, last)), percent((100 - LEFT) * max(0.0, right - left) / last)
        shape = element("rect", class_="reach", x=x, y=TOP, width=width, height=BOTTOM - TOP)
        shape.append(element("title", told))
        yield shape


def _ring(dot: Dot, number: int, heights: _Heights, last: float) -> Element:
    shape = element("circle", class_="ring", cx=percent(_share(dot.place, last)), cy=heights.at(dot.value), r=4.5)
    return element("g", element("title", dot.hover), shape, class_=_colour(number))


def _flag(flag: Flag, last: float) -> Element:
    shape = element("svg", element("path", d=FLAG), x=percent(_share(flag.place, last)), y=BOTTOM, overflow="visible")
    return element("g", element("title", flag.hover), shape, class_="flag")


def _level(tick: float, heights: _Heights, scale: Scale) -> Element:
    y = heights.at(tick)
    line = element("line", class_="base" if tick == heights.ticks[0] else "grid", x1=0, x2="100%", y1=y, y2=y)
    return element("g", line, _text(scale.tick(tick), "0", y - 4, "tick"))


def _few(ticks: Sequence[float], last: float) -> list[float]:
    within = [tick for tick in ticks if tick <= last]
    return within[:: ceil(sum(len(_name(tick)) for tick in within) / LETTERS)]


def _name(place: float) -> str:
    return f"{place:,.0f}"


def _share(place: float, last: float) -> float:
    return LEFT + (100 - LEFT) * place / last


def _colour(number: int) -> str:
    return f"series-{number % COLOURS + 1}"


def _dash(number: int) -> str:
    """Told apart by form as well as by colour; of the same colour again, another form."""
    return f"dash-{(number + number // COLOURS) % DASHES + 1}"


def _text(text: str, x: str, y: float, kind: str, anchor: str = "start") -> Element:
    return element("text", text, x=x, y=round(y, 2), class_=kind, text_anchor=anchor)
