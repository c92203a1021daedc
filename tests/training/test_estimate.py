"""Whether the disk has room for a capture: what is there already is not needed again, and scratch files take some."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from spec_convert.errors import UsageError
from spec_convert.training.capture.estimate import require_space


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """With 1,000 bytes of finished shards."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shard").write_bytes(bytes(1000))
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("states", "scratch", "needed"),
    [
        (5000, 0, 4000),
        (5000, 800, 4800),
        (1500, 800, 1000),  # no more than what is left lies there twice
    ],
)
def test_the_room_that_is_needed_is_what_is_left_and_what_lies_there_twice(
    output: Path, monkeypatch: pytest.MonkeyPatch, states: int, scratch: int, needed: int
) -> None:
    def with_free(size: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, size))
        require_space(output, states, layers=2, scratch=scratch)

    with_free(needed)
    with pytest.raises(UsageError, match="are missing"):
        with_free(needed - 1)


def test_a_capture_that_is_finished_needs_no_room(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    require_space(output, 1000, layers=2, scratch=800)
