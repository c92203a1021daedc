"""The Markdown that people read, as tests read it: its blocks of code, its headings, its links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = ("tests", ".venv", ".hypothesis", "build")  # fixtures come with READMEs of their authors

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
# Variables, what starts it, its words, and where its output goes or that it stays in the background.
CALL = re.compile(
    r"(?:[A-Z_]+=\S* +)*(?:spec-convert|torchrun .* -m spec_convert) +(?P<words>.*?)(?: +(?:[|>&]|# ).*)?"
)
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without its blocks of code."""
        return FENCE.sub("", self.text)

    @property
    def languages(self) -> set[str]:
        return {block["language"] for block in FENCE.finditer(self.text)}

    @property
    def in_order(self) -> Iterator[tuple[str, str]]:
        """Every block of code: its language and its text."""
        for block in FENCE.finditer(self.text):
            yield block["language"], block["text"]

    def blocks(self, language: str) -> list[str]:
        return [block["text"] for block in FENCE.finditer(self.text) if block["language"] == language]

    @property
    def inline_code(self) -> list[str]:
        return INLINE.findall(self.prose)

    @property
    def links(self) -> list[str]:
        return LINK.findall(INLINE.sub("``", self.prose))

    @property
    def anchors(self) -> set[str]:
        """What `#…` may name here, as GitHub makes it of the headings."""
        return {_anchor(heading) for heading in HEADING.findall(self.prose)}

    def sessions(self) -> Iterator[tuple[str, str]]:
        """Each command of the `console` blocks with what the page shows of its output."""
        for block in self.blocks("console"):
            yield from sessions_of(block)

    def command_lines(self) -> Iterator[str]:
        """Each line that calls spec-convert, in `sh` blocks and in what `text` blocks tell of runs elsewhere.

        Without variables that are set in front of it.
        """
        for block in (*self.blocks("sh"), *self.blocks("text")):
            for line in block.replace("\\\n", " ").splitlines():
                if call := CALL.fullmatch(line.removeprefix("$ ")):
                    yield f"spec-convert {call['words']}"


def sessions_of(block: str) -> Iterator[tuple[str, str]]:
    """Each command of one `console` block with what it shows."""
    for part in block.removeprefix("$ ").split("\n$ "):
        command, _, shown = part.partition("\n")
        yield command, shown.strip("\n")


def is_like(shown: str, answer: str) -> bool:
    return bool(re.fullmatch(_pattern(shown), answer.strip("\n"), re.DOTALL))


def _pattern(shown: str) -> str:
    """A regular expression for what is shown; … stands for anything, alone on its line for any lines.

    Columns are as wide as whatever is installed wants them.
    """
    return re.sub(r"(\\ ){2,}", " +", re.escape(shown)).replace("…", ".*")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def all_pages() -> list[Page]:
    """Every Markdown file that is ours."""
    found = (path for path in sorted(ROOT.rglob("*.md")) if path.relative_to(ROOT).parts[0] not in NOT_OURS)
    return [Page(path) for path in found]


README = Page(ROOT / "README.md")
DOCS = [Page(path) for path in sorted((ROOT / "docs").glob("*.md"))]
GUIDES = [README, *DOCS]
