"""The shell of a report that is one HTML file: it loads nothing, runs nothing, and carries its numbers with it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Literal

from spec_convert.reports.markup import Element, Node, data, element, style, to_html

# Whatever a name or a browser extension may try, the page can load nothing and run nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

Tone = Literal["good", "bad", "plain"]


def document(title: str, *body: Node, carries: tuple[str, Any]) -> str:
    """A whole page. ``carries`` is the id of an element and the value that it holds as JSON."""
    css = files("spec_convert.reports").joinpath("page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        style(css),
    )
    main = element("main", *body)
    page = element("html", head, element("body", main, data(*carries)), lang="en")
    return f"<!DOCTYPE html>\n{to_html(page)}\n"


def header(above: str, title: str, below: str) -> Element:
    return element(
        "header", element("p", above, class_="above"), element("h1", title), element("p", below, class_="below")
    )


def section(title: str, *content: Node) -> Element:
    return element("section", element("h2", title), *content)


def tiles(*content: Element) -> Element:
    return element("dl", *content, class_="tiles")


def tile(name: str, value: str, unit: str, note: str, *, tone: Tone = "plain") -> Element:
    """One headline figure: what it is, the figure, its unit (may be empty), and what to hold it against."""
    figure = element(
        "dd", element("span", value, class_="figure" if any(map(str.isdigit, value)) else "word"), class_="value"
    )
    if unit:
        figure.append(element("span", unit, class_="unit"))
    return element("div", element("dt", name), figure, element("dd", note, class_="note"), class_=f"tile {tone}")


def side_by_side(*content: Element) -> Element:
    """Figures and tables in as many columns as there is room for."""
    return element("div", *content, class_="figures")


def in_columns(*content: Element) -> Element:
    """Cards of any height, below each other in as many columns as there is room for."""
    return element("div", *content, class_="in-columns")


def figure(title: str, note: str, *content: Element, wide: bool = False) -> Element:
    """A chart with its title and how to read it."""
    return element("figure", element("h3", title), element("p", note), *content, class_=_width(wide))


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, wide: bool = False, words: bool = False
) -> Element:
    """A table of text; the first cell of each row names the row. ``words``: cells are read, not compared."""
    head = element("tr", *(element("th", column, scope="col") for column in columns))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    ]
    made = element("table", element("thead", head), element("tbody", *body), aria_label=title)
    # A wide table moves within its box; the page never moves sideways. The keyboard must be able to reach it.
    box = element("div", made, class_="scrolls", tabindex=0, role="region", aria_label=title)
    return element("div", element("h3", title), box, class_=f"table {_width(wide)}{' words' if words else ''}")


def facts(rows: Sequence[tuple[str, str]]) -> Element:
    """Names and what they are."""
    return element(
        "dl", *(element("div", element("dt", name), element("dd", told)) for name, told in rows), class_="facts"
    )


def paragraph(text: str) -> Element:
    return element("p", text)


def _width(wide: bool) -> str:
    return "wide" if wide else "narrow"
