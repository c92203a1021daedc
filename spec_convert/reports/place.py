"""Where a finding points to: the file that CI should open, and what inside it is meant."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from urllib.parse import quote

from spec_convert.reports.escape import encodable

_FILE = re.compile(
    r"(?P<file>[^\s:/]+\.(?:json|safetensors|bin|pt|pth|ckpt|npy|model|txt))(?:: *(?P<name>.+))?", re.DOTALL
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """``path`` is a file, or the checkpoint's folder when the file is not known; ``name`` a tensor or a config key."""

    path: str
    name: str | None

    @property
    def uri(self) -> str:
        if "://" in self.path:
            return quote(self.path, safe="/:@")
        # A colon in the first part of a relative reference would make it a scheme.
        quoted = quote(self.path, safe="/@")
        return f"file://{quoted}" if self.path.startswith("/") else quoted


def place(source: str, where: str) -> Place:
    """Reads ``where``: a file (``config.json``), something in a file (``config.json: rope_theta``) or only a name."""
    source, where = encodable(source), encodable(where)
    if where == source:
        return Place(path=_tidy(source), name=None)
    match = _FILE.fullmatch(where)
    if match is None:
        return Place(path=_tidy(source), name=where)
    # A source that is itself a weight file has its config.json beside it, not in it.
    folder = posixpath.dirname(source) if _FILE.fullmatch(posixpath.basename(source)) else source
    return Place(path=_tidy(posixpath.join(folder, match["file"])), name=match["name"])


def _tidy(path: str) -> str:
    return path if "://" in path else posixpath.normpath(path)
