"""Where checkpoints come from: a folder, one file, or an id on the Hub."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from spec_convert.containers.refusal import unreadable
from spec_convert.errors import Unreadable
from spec_convert.tensor import Files

_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./+-]+))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFolder:
    """The files of one folder, or only some of them. Links are followed: a Hub cache consists of links."""

    root: Path
    label: str
    only: frozenset[str] | None = None
    revision: None = None

    def sizes(self) -> Mapping[str, int]:
        try:
            with os.scandir(self.root) as entries:
                found = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except OSError as error:
            raise unreadable("no-such-source", self.label, f"cannot be listed: {error.strerror}") from error
        return {name: found[name] for name in sorted(found) if self.only is None or name in self.only}

    def open(self, name: str) -> BinaryIO:
        try:
            return self.path(name).open("rb")
        except OSError as error:
            raise unreadable("no-such-source", name, f"cannot be opened: {error.strerror}") from error

    def path(self, name: str) -> Path:
        assert Path(name).name == name, "only files of the folder itself"
        return self.root / name


def locate(source: str | Path, revision: str | None = None) -> tuple[Files, str | None]:
    """The files of a source, and the one weight file if the source names it. What exists here wins over the Hub."""
    text = str(source)
    if text.startswith("hf://") or not os.path.exists(text):
        return _hub(text, revision), None
    if revision is not None:
        raise unreadable(
            "no-such-source", text, f"is on this machine and has no revision {revision}", f"Write hf://{text}."
        )
    path = Path(text)
    if path.is_dir():
        return LocalFolder(root=path, label=text), None
    if path.is_file():
        return LocalFolder(root=path.parent, label=text, only=frozenset({path.name, "config.json"})), path.name
    raise unreadable("no-such-source", text, "is neither a file nor a folder")


def _hub(text: str, revision: str | None) -> Files:
    match = _HUB_ID.fullmatch(text.removeprefix("hf://"))
    if match is None or not _legal(match["id"]):
        raise unreadable(
            "no-such-source",
            text or "(empty)",
            "is no file or folder here and no id on the Hub",
            "Give an existing path, or an id like org/name or org/name@revision.",
        )
    if revision and match["revision"] and revision != match["revision"]:
        raise unreadable(
            "no-such-source", text, f"names another revision than --revision {revision}", "Give the revision once."
        )
    from spec_convert.hub import HubRepo

    try:
        return HubRepo(match["id"], revision or match["revision"])
    except Unreadable as problem:
        if text.startswith("hf://"):
            raise
        message = f"{problem.finding.message}; and there is no folder or file {text} here"
        raise Unreadable(replace(problem.finding, message=message)) from problem


def _legal(repo: str) -> bool:
    """The Hub's own rules beyond the letters."""
    return len(repo) <= 96 and "--" not in repo and ".." not in repo and not repo.endswith((".git", ".", "-"))
