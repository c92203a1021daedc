"""A real browser shows the page as it is meant: all of it visible, at any width, in any light, and quietly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from spec_convert.evaluation.page import page
from spec_convert.reports.escape import one_line

from ..browser import INKS, PLACES, Browser, chromium, contrast, luminance
from .sample import EVERY, HOSTILE

WIDTHS = (400, 800, 1400)
DRAWN = {"greedy": 3, "sampled": 2, "sixteen": 3, "perfect": 3, "nothing": 0, "attack": 3}
SHAPES = """return [...document.querySelectorAll('.chart rect, .chart circle, .chart path')].map(one => [
    one.tagName, getComputedStyle(one).fill, getComputedStyle(one.closest('figure')).backgroundColor]);"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    written = {name: folder / f"{name}.html" for name in EVERY}
    for name, path in written.items():
        path.write_text(page(EVERY[name]), encoding="utf-8")
    return written


@pytest.fixture(params=EVERY)
def shown(request: pytest.FixtureRequest, pages: dict[str, Path]) -> tuple[str, Path]:
    return request.param, pages[request.param]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_moves_sideways(shown: tuple[str, Path], width: int, browser: Browser) -> None:
    browser.open(shown[1], width=width)
    inside, outside = browser.ask(
        "const {clientWidth, scrollWidth} = document.documentElement; return [clientWidth, scrollWidth]"
    )
    assert width - 20 <= inside <= width
    assert outside <= inside


@pytest.mark.parametrize("width", WIDTHS)
def test_every_chart_is_seen_and_lies_within_the_page(shown: tuple[str, Path], width: int, browser: Browser) -> None:
    name, path = shown
    browser.open(path, width=width)
    charts = browser.ask(PLACES, "svg.chart")
    assert len(charts) == DRAWN[name]
    for chart in charts:
        assert chart["shown"]
        assert chart["right"] - chart["left"] > 250
        assert chart["bottom"] - chart["top"] > 150
    for part in browser.ask(PLACES, ".chart rect, .chart circle, .chart text"):
        assert 0 <= part["left"] <= part["right"] <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_no_two_values_in_a_chart_run_into_each_other(shown: tuple[str, Path], width: int, browser: Browser) -> None:
    browser.open(shown[1], width=width)
    values = [value for value in browser.ask(PLACES, ".chart .value") if value["shown"]]
    for number, one in enumerate(values):
        for other in values[number + 1 :]:
            beside = one["right"] <= other["left"] or other["right"] <= one["left"]
            above = one["bottom"] <= other["top"] or other["bottom"] <= one["top"]
            assert beside or above, (one, other)


@pytest.mark.parametrize("width", WIDTHS)
def test_three_drafted_tokens_have_their_values_shown_at_any_width(
    width: int, pages: dict[str, Path], browser: Browser
) -> None:
    browser.open(pages["greedy"], width=width)
    values = [value["text"] for value in browser.ask(PLACES, ".chart .value") if value["shown"]]
    joint, conditional, alpha = ["55%", "29%", "14%"], ["55%", "53%", "50%"], ["54%", "51%", "49%"]
    assert values == [*joint, *conditional, *alpha, "647", "374", "209", "208", "46.6", "30.7"]


def test_the_headline_figures_can_be_read(pages: dict[str, Path], browser: Browser) -> None:
    browser.open(pages["greedy"], width=1400)
    tiles = [tile["text"] for tile in browser.ask(PLACES, ".tile .value") if tile["shown"]]
    assert tiles == ["1.98tokens", "46.6tokens/s", "1.52\N{MULTIPLICATION SIGN}", "Lossless"]
    assert browser.ask("return document.title").startswith("eagle1_smol135")


def test_the_console_stays_silent_and_nothing_is_loaded(shown: tuple[str, Path], browser: Browser) -> None:
    browser.complaints()
    browser.open(shown[1], width=800)
    assert browser.complaints() == []
    assert browser.ask("return performance.getEntriesByType('resource').map(one => one.name)") == []


def test_the_data_is_what_the_evaluation_prints(shown: tuple[str, Path], browser: Browser) -> None:
    name, path = shown
    browser.open(path, width=800)
    read = browser.ask("return JSON.stringify(JSON.parse(document.getElementById('measured').textContent))")
    assert json.loads(read) == EVERY[name].to_json()


def test_a_hostile_name_is_only_a_name(pages: dict[str, Path], browser: Browser) -> None:
    browser.open(pages["attack"], width=800)
    assert browser.ask("return document.querySelector('h1').textContent") == one_line(HOSTILE)
    assert browser.ask("return document.querySelectorAll('script, img').length") == 1


def test_even_a_script_that_got_into_the_page_would_not_run(
    pages: dict[str, Path], browser: Browser, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.html"
    html = pages["greedy"].read_text(encoding="utf-8")
    broken.write_text(html.replace("</main>", "</main><script>document.title = 'ran'</script>"), encoding="utf-8")
    browser.open(broken, width=800)
    assert browser.ask("return document.title") != "ran"
    assert "Content Security Policy" in browser.complaints()[0]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_shapes_stand_out_from_what_is_behind_them(
    scheme: str, pages: dict[str, Path], browser: Browser
) -> None:
    """By WCAG 2.2: 4.5 for text (1.4.3), 3 for graphics (1.4.11)."""
    browser.open(pages["sixteen"], width=1400, scheme=scheme)
    read = browser.ask(INKS)
    assert len(read) > 50
    assert [ink for ink in read if contrast(ink) < 4.5] == []
    drawn = browser.ask(SHAPES)
    assert {shape for shape, *_ in drawn} == {"rect", "circle", "path"}
    assert [shape for shape in drawn if contrast(shape) < 3] == []


def test_dark_is_dark_on_a_screen_and_light_on_paper(pages: dict[str, Path], browser: Browser) -> None:
    behind = "return getComputedStyle(document.body).backgroundColor"
    browser.open(pages["greedy"], width=800, scheme="dark")
    assert luminance(browser.ask(behind)) < 0.02
    browser.open(pages["greedy"], width=800, scheme="dark", media="print")
    assert luminance(browser.ask(behind)) == pytest.approx(1)
    assert [ink for ink in browser.ask(INKS) if contrast(ink) < 4.5] == []
