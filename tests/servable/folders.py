"""Draft folders as these tests change and compare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def edit(folder: Path, **changes: Any) -> Path:
    """Change keys of a config.json; ``key=...`` (an ellipsis) removes one."""
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def edit_envelope(folder: Path, **changes: Any) -> Path:
    """The same for the verifier that a unified config.json names."""
    envelope = json.loads((folder / "config.json").read_text())["speculators_config"]
    return edit(folder, speculators_config=envelope | {"verifier": envelope["verifier"] | changes})


def bytes_of(folder: Path | str, *names: str) -> dict[str, bytes]:
    return {name: (Path(folder) / name).read_bytes() for name in names or ("config.json", "model.safetensors")}
