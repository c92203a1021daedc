"""The damaged checkpoints in `fixtures/`: `expect.json` says what must become of each, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cases, seen from an empty working directory: a payload that runs leaves a file there."""
    monkeypatch.chdir(tmp_path)
    return FIXTURES
