"""Charts as SVG: columns with marks beside them, and horizontal bars.

Every horizontal place is a share of the width and every vertical one a number of pixels, so that a chart fills
whatever it is put into while its letters keep their size. Colours are the page's: ``page.css`` has a class a series.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from spec_convert.reports.markup import Element, element

TOP, BOTTOM, HEIGHT = 42.0, 234.0, 276.0  # pixels: the highest and lowest line of the columns, and all of it
LEFT = 9.0  # percent, left free for the numbers of the axis
FILLED = 0.92  # of a group's width
LETTER = 7.6  # pixels, the width of a character of a value, in a wide font
WIDEST = 1200  # pixels: no chart is wider
ROW, BAR = 62.0, 22.0  # pixels
LONGEST = 84.0  # percent of the width; the rest is for the value behind the bar
DIAMOND = "M0 -6.5 L6.5 0 L0 6.5 L-6.5 0 Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The axis of values, from 0 to at least ``top``."""

    label: str
    top: float
    tick: Callable[[float], str]  # a number at the axis, in words
    value: Callable[[float], str]  # a number at its bar or mark
    whole: bool = False  # counts: no tick between two whole numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One number a group, drawn as a bar or as a mark; None and numbers that are not finite leave a gap."""

    name: str
    values: Sequence[float | None]
    hover: Sequence[str]  # what the pointer is told, one a group
    mark: bool = False


def columns(title: str, *, groups: Sequence[str], grouped_by: str, series: Sequence[Series], axis: Axis) -> Element:
    """Upright bars, and marks beside them, one of each series in every group."""
    ticks = nice_ticks(axis.top, whole=axis.whole)
    step = (100 - LEFT) / len(groups)
    slot = step * FILLED / len(series)
    svg = _svg(title, HEIGHT, _room_for_labels(series, axis, slot))
    svg.append(_text(axis.label, "0", 12, "axis"))
    svg.extend(_level(tick, ticks[-1], axis.tick(tick)) for tick in ticks)
    for number, one in enumerate(series):
        for place, value in enumerate(one.values):
            if value is not None and isfinite(value):
                middle = LEFT + place * step + (step - slot * len(series)) / 2 + (number + 0.5) * slot
                shape = _mark if one.mark else _column
                height = _height(value, ticks[-1])
                label = _text(axis.value(value), percent(middle), height - (13 if one.mark else 7), "value", "middle")
                drawn = shape(number, middle, slot * 0.86, height)
                svg.append(_told(one.hover[place], f"series-{number + 1}", *drawn, label))
    for place, name in enumerate(groups):
        svg.append(_text(name, percent(LEFT + (place + 0.5) * step), BOTTOM + 18, "tick", "middle"))
    svg.append(_text(grouped_by, percent(LEFT + (100 - LEFT) / 2), BOTTOM + 38, "axis", "middle"))
    return svg


def bars(
    title: str, *, names: Sequence[str], series: Series, axis: Axis, colours: Sequence[str] | None = None
) -> Element:
    """Horizontal bars, each below its name and with its value at its end.

    ``colours``: the class of each. None: the first is held against the others.
    """
    colours = colours or ["series-1", *["others"] * (len(names) - 1)]
    scale = LONGEST / (axis.top or 1.0)
    foot = len(names) * ROW + 6
    svg = _svg(title, foot + 42, "roomy")
    for tick in nice_ticks(axis.top, whole=axis.whole):
        x = percent(scale * tick)
        if tick > axis.top:
            break
        svg.append(element("line", class_="grid", x1=x, x2=x, y1=4, y2=foot))
        svg.append(_text(axis.tick(tick), x, foot + 16, "tick", "middle" if tick else "start"))
    svg.append(_text(axis.label, "0", foot + 36, "axis"))
    for row, (name, value) in enumerate(zip(names, series.values, strict=True)):
        y = row * ROW
        svg.append(_text(name, "0", y + 20, "name"))
        if value is not None and isfinite(value):
            width = percent(scale * value)
            drawn = element("rect", x=0, y=y + 30, width=width, height=BAR, rx=2)
            label = _text(axis.value(value), width, y + 30 + BAR / 2 + 4, "value")
            label.set("dx", "7")
            svg.append(_told(series.hover[row], colours[row], drawn, label))
    return svg


def legend(series: Sequence[Series]) -> Element:
    """The series and how each is drawn, as an HTML list that wraps as it must."""
    items = []
    for number, one in enumerate(series):
        key = element("svg", width=14, height=14, aria_hidden="true", class_=f"series-{number + 1}")
        key.append(_shape(number, "50%", 7) if one.mark else element("rect", y=1, x=1, width=12, height=12, rx=2))
        items.append(element("li", key, one.name))
    return element("ul", *items, class_="legend")


def nice_ticks(top: float, *, whole: bool = False) -> list[float]:
    """From 0 to ``top`` or just above, in three to eight steps of 1, 2 or 5 times a power of ten."""
    if not isfinite(top) or top <= 0:
        return [0.0, 1.0]
    decade = 10.0 ** floor(log10(top / 3))
    step = max(decade * factor for factor in (1, 2, 5) if decade * factor <= top / 3 * (1 + 1e-9))
    if whole:
        step = max(1.0, step)
    return [round(step * number, 12) for number in range(ceil(top / step - 1e-9) + 1)]


def percent(share: float) -> str:
    return f"{share:.3f}".rstrip("0").rstrip(".") + "%"


def _svg(title: str, height: float, room: str) -> Element:
    return element("svg", element("title", title), role="img", class_=f"chart {room}", width="100%", height=height)


def _room_for_labels(series: Sequence[Series], axis: Axis, slot: float) -> str:
    """The class by whose width, in steps of 50 pixels, the page hides values that would run into each other."""
    values = [value for one in series for value in one.values if value is not None and isfinite(value)]
    longest = max((len(axis.value(value)) for value in values), default=0)
    room = ceil((longest * LETTER + 3) / slot * 100 / 50) * 50
    return f"room-{room}" if room <= WIDEST else "crowded"


def _height(value: float, top: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * value / top, 2)


def _level(tick: float, top: float, name: str) -> Element:
    y = _height(tick, top)
    line = element("line", class_="grid" if tick else "base", x1=0, x2="100%", y1=y, y2=y)
    return element("g", line, _text(name, "0", y - 4, "tick"))


def _column(number: int, middle: float, width: float, height: float) -> list[Element]:
    x, wide = percent(middle - width / 2), percent(width)
    return [element("rect", x=x, y=height, width=wide, height=round(BOTTOM - height, 2), rx=2)]


def _mark(number: int, middle: float, width: float, height: float) -> list[Element]:
    x = percent(middle)
    return [element("line", class_="stem", x1=x, x2=x, y1=BOTTOM, y2=height), _shape(number, x, height)]


def _shape(number: int, x: str, y: float) -> Element:
    """Told apart by form as well as by colour. A path takes no shares: an svg of its own carries it."""
    if number % 2:
        return element("circle", cx=x, cy=y, r=5.5)
    return element("svg", element("path", d=DIAMOND), x=x, y=y, overflow="visible")


def _told(hover: str, colour: str, *drawn: Element) -> Element:
    return element("g", element("title", hover), *drawn, class_=colour)


def _text(text: str, x: str, y: float, kind: str, anchor: str = "start") -> Element:
    return element("text", text, x=x, y=round(y, 2), class_=kind, text_anchor=anchor)
