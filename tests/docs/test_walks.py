"""Whoever types what a page says gets what the page says: every command is run here, or says what it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from .pages import GUIDES, Page, all_pages
from .walking import NEEDS, Reader, marks

SERVE = ("evaluating", "pipeline", "scaling-out", "serving", "training-data", "training")  # by a real vLLM
LONG = (pytest.mark.long, pytest.mark.vllm, pytest.mark.timeout(1800))
MARKS = {f"docs/{name}.md": LONG for name in SERVE}
WALKED = [page for page in GUIDES if page.languages & {"sh", "console", "python"}]


@pytest.mark.parametrize("page", [pytest.param(page, marks=MARKS.get(page.name, ()), id=page.name) for page in WALKED])
def test_what_a_page_says_can_be_typed(page: Page, folder: Path) -> None:
    if problems := "\n".join(Reader(folder).problems(page)):
        pytest.fail(problems, pytrace=False)


@pytest.mark.parametrize("page", all_pages(), ids=lambda page: page.name)
def test_what_cannot_run_here_says_what_it_needs(page: Page) -> None:
    """In known words, so that a slip of the pen does not keep a block from being run."""
    for block in page.blocks("sh"):
        assert set(marks(block)) <= set(NEEDS), block


@pytest.mark.parametrize("page", [page for page in all_pages() if page not in GUIDES], ids=lambda page: page.name)
def test_commands_of_other_pages_say_what_they_need(page: Page) -> None:
    """Those of the examples and benchmarks: nobody walks through these pages here."""
    assert [block for block in page.blocks("sh") if not marks(block)] == []


def test_a_command_that_fails_is_noticed(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text("```sh\nspec-convert detect draft\nspec-convert detect nothing-here\n```\n")
    [problem] = Reader(folder).problems(Page(page))
    assert "ended with 2" in problem
    assert "nothing-here" in problem


def test_a_session_that_says_something_else_is_noticed(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text("```console\n$ echo one\ntwo\n$ echo two\nt…\n```\n")
    assert list(Reader(folder).problems(Page(page))) == ["$ echo one\none\n"]


def test_what_is_left_in_the_background_ends_with_its_block(folder: Path) -> None:
    page = folder / "page.md"
    still = "grep --quiet '^State:.[^ZX]' /proc/$(cat pid)/status"
    page.write_text(f"```sh\nsleep 600 &\necho $! > pid\n{still}\n```\n```sh\nwhile {still}; do sleep 0.1; done\n```\n")
    assert list(Reader(folder).problems(Page(page))) == []


def test_a_mark_is_read_with_its_reason() -> None:
    assert marks("# needs the Hub and a GPU: 16 GB of weights\nspec-convert detect x/y\n") == ["the Hub", "a GPU"]
    assert marks("spec-convert detect x\n") == []
