"""The Markdown that people read, as tests read it: its blocks of code, its headings, its links."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = ("tests", ".venv", ".hypothesis", "build")  # fixtures come with READMEs of their authors

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
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
            for part in block.removeprefix("$ ").split("\n$ "):
                command, _, shown = part.partition("\n")
                yield command, shown.strip("\n")

    def command_lines(self) -> Iterator[str]:
        """Each line of the `sh` blocks that calls spec-convert, without variables that are set in front of it."""
        for block in self.blocks("sh"):
            for line in block.replace("\\\n", " ").splitlines():
                call = re.fullmatch(r"(?:[A-Z_]+=\S* +)*(spec-convert .*?)(?: +[|>].*)?", line)
                if call:
                    yield call[1]


def unlike(page: Page, said: Callable[[str], str]) -> list[str]:
    """The sessions of a page that do not show what their commands say."""
    answers = [(command, shown, said(command)) for command, shown in page.sessions()]
    return [
        f"$ {command}\n{answer}"
        for command, shown, answer in answers
        if not re.fullmatch(_pattern(shown), answer.strip("\n"), re.DOTALL)
    ]


def output_of(command: list[str], folder: Path, env: Mapping[str, str] | None = None) -> str:
    """Both of its streams, as they come."""
    ran = subprocess.run(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return ran.stdout


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
