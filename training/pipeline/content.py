"""By what the things of a run are known again: their content, never their names or times."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from spec_convert.training.store.manifest import NAME, read_manifest
from spec_convert.verifier import Verifier

# Files of a verifier's folder that decide neither tokens nor answers, or of which `identity_of` knows.
IDENTIFIED = ("config.json", "*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.index.json")
UNREAD = ("*.gguf", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data")  # weights once more, which no stage opens
ABOUT = ("*.md", "LICEN[CS]E*", "NOTICE*", "USE_POLICY*", "*.pdf", "*.png", "*.jpg", "*.svg")


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
    """What `identity_of` leaves out of a folder: tokenizer, template, generation, code, whatever their names."""
    if verifier.files.revision is not None:
        return ""
    folder = Path(verifier.name)
    texts = [file for file in _files(folder) if not any(map(file.match, (*IDENTIFIED, *UNREAD, *ABOUT)))]
    return _digest([[str(file.relative_to(folder)), _of_file(file)] for file in texts])


def _files(folder: Path) -> Iterator[Path]:
    """Without hidden ones, which are not finished."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return (path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
