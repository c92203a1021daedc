"""The drafts that a training has left: their files with checksums, their configs, and what they were made of."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.training.documents import anew, read_object
from spec_convert.training.trainer.folder import RunFolder

TRAIN = anew("spec-convert train, with --no-resume-from-checkpoint")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedDraft:
    """``conversion``: what conversion.json says of its origin, without the list of its tensors."""

    name: str
    best: bool
    written: str  # UTC
    files: tuple[File, ...]
    config: dict[str, Any] | None
    conversion: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_drafts(folder: RunFolder) -> tuple[SavedDraft, ...]:
    """In the order of their epochs. Raises UsageError."""
    best = folder.best.resolve().name if folder.best.is_symlink() else ""
    return tuple(_read(path, best=path.name == best) for path in folder.drafts() if path.is_dir())


def _read(path: Path, *, best: bool) -> SavedDraft:
    conversion = read_object(path / "conversion.json", hint=TRAIN)
    if conversion is not None:
        conversion = {key: value for key, value in conversion.items() if key != "tensors"}
    return SavedDraft(
        name=path.name,
        best=best,
        written=when(path.stat().st_mtime),
        files=tuple(_file(file) for file in sorted(path.iterdir()) if file.is_file()),
        config=read_object(path / "config.json", hint=TRAIN),
        conversion=conversion,
    )


def _file(path: Path) -> File:
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return File(name=path.name, bytes=stream.tell(), sha256=digest)
    except OSError as reason:
        raise UsageError(f"{path} cannot be read: {reason.strerror}", hint="check its permissions") from reason


def when(seconds: float) -> str:
    """A moment in UTC, to the second, as ISO 8601 has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
