"""Ways to make a weight file, sound or damaged, without any library of the format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spec_convert.errors import Unreadable
from spec_convert.open import open_checkpoint

Refusal = Callable[[Path], Unreadable]
WriteSafetensors = Callable[..., Path]


@pytest.fixture
def refusal() -> Refusal:
    """Open a source that must be refused, and hand back the refusal."""

    def opened(source: Path) -> Unreadable:
        with pytest.raises(Unreadable) as caught:
            open_checkpoint(source)
        return caught.value

    return opened


@pytest.fixture
def write_safetensors(tmp_path: Path) -> WriteSafetensors:
    """Write a file from a header (or its text) and the bytes of data behind it."""

    def write(header: dict[str, Any] | str, data: bytes = b"", name: str = "model.safetensors") -> Path:
        text = (header if isinstance(header, str) else json.dumps(header)).encode()
        path = tmp_path / name
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        return path

    return write
