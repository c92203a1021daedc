"""A real browser shows the page of a run as it is meant: every line seen, at any width, in any light, and quietly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spec_convert.reports.escape import finite, one_line
from spec_convert.training.report.page import page
from spec_convert.training.report.run import Run, read_run

from ...browser import INKS, PLACES, Browser, chromium, contrast, luminance
from .sample import HOSTILE, log, write_hostile, write_run, write_training

WIDTHS = (400, 1200)
DRAWN = {"whole": 14, "training": 9, "long": 9, "going": 9, "hostile": 14}
# [shape, its colour, the colour behind it] of all lines, rings, bars and marks.
STROKES = """
const shapes = '.chart .line, .chart .ring, .chart rect:not(.reach), .flag path';
return [...document.querySelectorAll(shapes)].map(one => {
    const {stroke, fill} = getComputedStyle(one);
    const behind = getComputedStyle(one.closest('figure')).backgroundColor;
    return [one.tagName, stroke === 'none' ? fill : stroke, behind];
});"""
# Of each chart of lines: the box of its axes, and the boxes of what lies in it.
INSIDE = """
const box = (one) => {
    const {left, right, top, bottom} = one.getBoundingClientRect();
    return [left, right, top, bottom];
};
return [...document.querySelectorAll('.chart')].filter(svg => svg.querySelector('.plot')).map(svg => {
    const [left, right] = box(svg);
    const levels = [...svg.querySelectorAll('.grid, .base')].map(box);
    return {
        left, right, top: Math.min(...levels.map(one => one[2])), bottom: Math.max(...levels.map(one => one[3])),
        lines: [...svg.querySelectorAll('.line, .band, .point')].map(box),
        rings: [...svg.querySelectorAll('.ring')].map(box),
    };
});"""
# The words of each chart, every one as `PLACES` has it.
WORDS = """return [...document.querySelectorAll('.chart')].map(svg => [...svg.querySelectorAll('text')].map(word => {
    const {left, right, top, bottom} = word.getBoundingClientRect();
    return {left, right, top, bottom, text: word.textContent, shown: word.checkVisibility()};
}));"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "whole")
    write_training(folder / "training", list(log()))
    write_training(folder / "long", list(log(steps=24_000, positions=7)))
    write_training(folder / "going", list(log())[:12])
    write_hostile(folder / "hostile")
    return {name: read_run(folder / name) for name in DRAWN}


@pytest.fixture(scope="module")
def pages(runs: dict[str, Run], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    for name, run in runs.items():
        (folder / f"{name}.html").write_text(page(run), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in runs}


@pytest.fixture(params=DRAWN)
def name(request: pytest.FixtureRequest) -> str:
    made: str = request.param
    return made


def apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
    beside = one["right"] <= other["left"] or other["right"] <= one["left"]
    return beside or one["bottom"] <= other["top"] or other["bottom"] <= one["top"]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_moves_sideways_and_the_console_is_silent(
    name: str, width: int, pages: dict[str, Path], browser: Browser
) -> None:
    browser.complaints()
    browser.open(pages[name], width=width)
    inside, outside = browser.ask(
        "const {clientWidth, scrollWidth} = document.documentElement; return [clientWidth, scrollWidth]"
    )
    assert outside <= inside <= width
    assert browser.complaints() == []
    assert browser.ask("return performance.getEntriesByType('resource').map(one => one.name)") == []


@pytest.mark.parametrize("width", WIDTHS)
def test_every_chart_is_seen_and_lies_within_the_page(
    name: str, width: int, pages: dict[str, Path], browser: Browser
) -> None:
    browser.open(pages[name], width=width)
    charts = browser.ask(PLACES, "svg.chart")
    assert len(charts) == DRAWN[name]
    for chart in charts:
        assert chart["shown"]
        assert chart["right"] - chart["left"] > 250
        assert chart["bottom"] - chart["top"] > 90
    for part in browser.ask(PLACES, ".chart rect, .chart circle, .chart path, .chart text"):
        assert 0 <= part["left"] <= part["right"] <= width, part


@pytest.mark.parametrize("width", WIDTHS)
def test_every_line_is_drawn_inside_its_axes(name: str, width: int, pages: dict[str, Path], browser: Browser) -> None:
    browser.open(pages[name], width=width)
    charts = browser.ask(INSIDE)
    assert charts
    for chart in charts:
        assert chart["lines"]
        for left, right, top, bottom in chart["lines"]:
            assert chart["left"] <= left <= right <= chart["right"] + 3
            assert chart["top"] - 3 <= top <= bottom <= chart["bottom"] + 3
        for left, right, top, bottom in chart["rings"]:
            assert chart["top"] <= (top + bottom) / 2 <= chart["bottom"]
            assert chart["left"] < (left + right) / 2 <= chart["right"] + 1


def test_lines_reach_over_the_whole_width_and_height(pages: dict[str, Path], browser: Browser) -> None:
    browser.open(pages["training"], width=800)
    for chart in browser.ask(INSIDE):
        left, right = min(box[0] for box in chart["lines"]), max(box[1] for box in chart["lines"])
        assert right - left > 0.8 * (chart["right"] - chart["left"])
        assert max(box[3] - box[2] for box in chart["lines"]) > 10


@pytest.mark.parametrize("width", WIDTHS)
def test_no_two_words_in_a_chart_run_into_each_other(
    name: str, width: int, pages: dict[str, Path], browser: Browser
) -> None:
    browser.open(pages[name], width=width)
    charts = browser.ask(WORDS)
    assert len(charts) == DRAWN[name]
    for words in charts:
        shown = [word for word in words if word["shown"] and word["text"]]
        for at, one in enumerate(shown):
            for other in shown[at + 1 :]:
                assert apart(one, other), (one, other)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_headline_fits_its_tiles(name: str, width: int, pages: dict[str, Path], browser: Browser) -> None:
    browser.open(pages[name], width=width)
    tiles, values = browser.ask(PLACES, ".tile"), browser.ask(PLACES, ".tile .value")
    assert len(tiles) == len(values) >= 4
    for tile, parts in zip(tiles, values, strict=True):
        assert parts["right"] <= tile["right"]
    for part in browser.ask(PLACES, ".tile .value span"):
        assert any(tile["left"] <= part["left"] <= part["right"] <= tile["right"] for tile in tiles), part


def test_the_data_is_what_the_command_prints(
    name: str, runs: dict[str, Run], pages: dict[str, Path], browser: Browser
) -> None:
    browser.open(pages[name], width=800)
    read = browser.ask("return JSON.stringify(JSON.parse(document.getElementById('run').textContent))")
    assert json.loads(read) == json.loads(json.dumps(finite(runs[name].to_json())))


def test_a_hostile_name_is_only_a_name(pages: dict[str, Path], browser: Browser) -> None:
    browser.open(pages["hostile"], width=800)
    assert browser.ask("return document.querySelectorAll('script, img').length") == 1
    assert one_line(HOSTILE) in browser.ask("return document.querySelector('.below').textContent")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_shapes_stand_out_from_what_is_behind_them(
    scheme: str, pages: dict[str, Path], browser: Browser
) -> None:
    """By WCAG 2.2: 4.5 for text (1.4.3), 3 for graphics (1.4.11)."""
    for name in ("whole", "long"):
        browser.open(pages[name], width=1200, scheme=scheme)
        assert [ink for ink in browser.ask(INKS) if contrast(ink) < 4.5] == []
        drawn = browser.ask(STROKES)
        assert {"path", "circle"} <= {shape for shape, *_ in drawn}
        assert [shape for shape in drawn if contrast(shape) < 3] == []


def test_dark_is_dark_on_a_screen_and_light_on_paper(pages: dict[str, Path], browser: Browser) -> None:
    behind = "return getComputedStyle(document.body).backgroundColor"
    browser.open(pages["whole"], width=800, scheme="dark")
    assert luminance(browser.ask(behind)) < 0.02
    browser.open(pages["whole"], width=800, scheme="dark", media="print")
    assert luminance(browser.ask(behind)) == pytest.approx(1)
    assert [ink for ink in browser.ask(INKS) if contrast(ink) < 4.5] == []
