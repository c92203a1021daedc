"""Where checkpoints come from: a folder, one file, or an id on the Hub."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from spec_convert.containers.choose import SUFFIXES, is_leftover
from spec_convert.containers.refusal import unreadable
from spec_convert.errors import Unreadable
from spec_convert.tensor import Files

_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./+-]+))?", re.ASCII)
# Opening a pipe waits for ever, reading a device may never end.
_ODD = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
AGAIN = "Download the checkpoint again: its weights are files"
OUTSIDE = "Put the file itself in its place, if you trust the link; a link that SOURCE itself names is followed"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFolder:
    """The files of one folder, or only some of them.

    A link must stay inside the folder, or inside the repository of a Hub cache, which consists of links: a checkpoint
    that somebody else packed could point to any file of this machine. ``named`` is the user's own word, link or not.
    """

    root: Path
    label: str
    only: frozenset[str] | None = None
    named: str | None = None
    revision: None = None

    def sizes(self) -> Mapping[str, int]:
        """Folders are left out, and so is anything odd that could be neither weights nor their description."""
        try:
            with os.scandir(self.root) as entries:
                wanted = (entry for entry in entries if self.only is None or entry.name in self.only)
                found = {entry.name: entry.stat().st_size for entry in wanted if self._lists(entry)}
        except OSError as error:
            raise unreadable("no-such-source", self.label, f"cannot be listed: {error.strerror}") from error
        return {name: found[name] for name in sorted(found)}

    def open(self, name: str) -> BinaryIO:
        try:
            return self.path(name).open("rb")
        except OSError as error:
            raise unreadable("no-such-source", name, f"cannot be opened: {error.strerror}") from error

    def path(self, name: str) -> Path:
        """Looked at each time: what was safe when it was listed may have become something else."""
        assert Path(name).name == name, "only files of the folder itself"
        if problem := self._problem(name):
            raise problem
        return self.root / name

    def _lists(self, entry: os.DirEntry[str]) -> bool:
        if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
            return entry.is_file(follow_symlinks=False)
        problem = self._problem(entry.name)
        if problem and _counts(entry.name):
            raise problem
        return problem is None

    def _problem(self, name: str) -> Unreadable | None:
        """Why ``name`` is no file of this checkpoint, if it is none."""
        path = self.root / name
        try:
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                target = Path(os.path.realpath(path, strict=True))
                if name != self.named and not self._holds(target):
                    message = f"is a link to {target}, outside {self.label}"
                    return unreadable("link-leaves-folder", name, message, OUTSIDE)
                mode = target.stat().st_mode
        except OSError as error:
            return unreadable("not-a-file", name, f"leads nowhere: {error.strerror}", AGAIN)
        if stat.S_ISREG(mode):
            return None
        return unreadable("not-a-file", name, f"is {_ODD.get(stat.S_IFMT(mode), 'a folder')}, not a file", AGAIN)

    def _holds(self, target: Path) -> bool:
        """Whether what a link leads to is inside the folder, or one of the blobs of the same Hub cache repository.

        There the folder is ``models--org--name/snapshots/COMMIT`` (or below), and its files lead to ``../../blobs/``.
        """
        folder = self.root.resolve()
        if target.is_relative_to(folder):
            return True
        repositories = (place.parent.parent for place in (folder, *folder.parents) if place.parent.name == "snapshots")
        return any(target.parent == repository / "blobs" for repository in repositories)


def _counts(name: str) -> bool:
    """Whether a checkpoint may be read from a file of this name."""
    return name.endswith((*SUFFIXES, ".json")) and not name.startswith(".") and not is_leftover(name)


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
        only = frozenset({path.name, "config.json"})
        return LocalFolder(root=path.parent, label=text, only=only, named=path.name), path.name
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
