"""Text put into a page comes out of it as it was put in, whatever it holds, and can become nothing else."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spec_convert.reports.escape import encodable, one_line
from spec_convert.reports.markup import data, element, style, to_html

ACTIVE = st.sampled_from(
    ["</script>", "<!--", "<script>", "]]>", "&lt;", "&", '"', "'", "<img src=x>", "\x00", "\ud800"]
)
TEXT = st.lists(st.text() | ACTIVE).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)


class Reader(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.seen.append(data)


@given(TEXT)
def test_text_stays_text_between_elements_and_in_attributes(hostile: str) -> None:
    html = to_html(element("p", hostile, element("b", "in between"), hostile, title=hostile))
    assert html.encode("utf-8")
    opening, *rest = Reader(html).seen
    shown = one_line(hostile)
    assert opening == ("p", {"title": shown})
    assert [part for part in rest if not isinstance(part, str)] == [("b", {})]
    assert "".join(part for part in rest if isinstance(part, str)) == f"{shown}in between{shown}"


@given(JSON)
def test_data_is_read_back_as_it_was_and_never_closes_its_element(value: Any) -> None:
    html = to_html(data("numbers", value))
    assert html.isascii()
    opening, text = Reader(html).seen
    assert opening == ("script", {"type": "application/json", "id": "numbers"})
    assert not set(text) & set("<>&")
    assert json.loads(text) == value


def test_data_holds_numbers_that_json_lacks_as_text() -> None:
    _, text = Reader(to_html(data("numbers", {"a": [float("nan"), float("inf"), 1.5]}))).seen
    assert json.loads(text) == {"a": ["nan", "inf", 1.5]}


def test_an_underscore_is_a_hyphen_and_one_at_the_end_is_nothing() -> None:
    assert (
        to_html(element("p", class_="a", aria_label="b", tabindex=0)) == '<p class="a" aria-label="b" tabindex="0"></p>'
    )


def test_a_style_is_not_escaped() -> None:
    assert to_html(style("a > b { c: 'd' }\n")) == "<style>a > b { c: 'd' }\n</style>"


def test_a_lone_surrogate_is_spelled_out() -> None:
    assert element("p", "\ud800").text == encodable("\ud800") == "\\ud800"
