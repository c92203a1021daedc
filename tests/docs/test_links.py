"""Every link that stays inside the repository leads somewhere, and every path that is named exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .pages import ROOT, Page, all_pages

PAGES = all_pages()
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
A_PATH = re.compile(r"(?:spec_convert|plugins|schemas|training|tests|docs|examples|benchmarks)/[\w./*-]*")


def dead(page: Page) -> Iterator[str]:
    for link in page.links:
        if re.match(r"[a-z]+:", link):
            continue  # another site
        name, _, anchor = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        if not target.exists() or (anchor and anchor not in Page(target).anchors):
            yield link


@EVERY_PAGE
def test_every_link_leads_to_a_file_and_a_heading(page: Page) -> None:
    assert list(dead(page)) == []


@EVERY_PAGE
def test_every_path_that_is_named_exists(page: Page) -> None:
    named = [code for code in page.inline_code if A_PATH.fullmatch(code)]
    assert [code for code in named if not list(ROOT.glob(code.rstrip("/")))] == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b-c`, d\n[1](#a-b-c-d) [2](page.md#a-b-c-d) [3](#other) [4](none.md) [5](https://x.y/#z)\n")
    assert list(dead(Page(page))) == ["#other", "none.md"]
