"""By what the things of a run are known again: their content, never their names or times."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from spec_convert.training.store.manifest import NAME, read_manifest
from spec_convert.verifier import Verifier

# Of a verifier's folder what decides tokens and answers besides config.json and the weights.
TEXT = ("tokenizer", "chat_template", "special_tokens_map", "added_tokens", "vocab", "merges", "generation_config")


def content_of(path: Path) -> str | None:
    """A digest of a file, or of a folder with its subfolders; None when it is not there, or is empty.

    Of a store the checksums in its manifest count, and that its files have their sizes: states are not read again.
    """
    if path.is_file():
        return _digest([_of_file(path)])
    if (path / NAME).is_file():
        manifest = read_manifest(path)
        facts = manifest.model_dump(mode="json", include={"kind", "layout", "tokenizer", "layers", "shards"})
        sizes = [[file.name, file.stat().st_size] for file in _files(path) if file.name != NAME]
        return _digest([facts, sizes]) if manifest.finished else None
    parts = [[str(file.relative_to(path)), _of_file(file)] for file in _files(path)] if path.is_dir() else []
    return _digest(parts) if parts else None


def text_of(verifier: Verifier) -> str:
    """What `identity_of` leaves out of a folder: the files of tokenizer, chat template and generation."""
    if verifier.files.revision is not None:
        return ""
    names = sorted(name for name in verifier.files.sizes() if name.startswith(TEXT))
    return _digest([[name, _of_file(verifier.files.path(name))] for name in names])


def _files(folder: Path) -> Iterator[Path]:
    """Without hidden ones, which are not finished."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return (path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
