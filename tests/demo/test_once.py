"""A stage of the demo leaves its whole folder, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from spec_convert.demo.once import appearing
from spec_convert.errors import UsageError


def test_the_folder_appears_when_all_is_written(tmp_path: Path) -> None:
    with appearing(tmp_path / "deep" / "result") as folder:
        (folder / "file").write_text("whole")
        assert not (tmp_path / "deep" / "result").exists()
    assert (tmp_path / "deep" / "result" / "file").read_text() == "whole"
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with appearing(tmp_path / "result") as folder:
            (folder / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "result" / "theirs"
    theirs.parent.mkdir()
    theirs.touch()
    with pytest.raises(UsageError, match="cannot write"), appearing(tmp_path / "result"):
        pass
    assert theirs.exists()


def test_a_place_that_cannot_be_written_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as refused, appearing(tmp_path / "file" / "result"):
        pass
    assert "--folder" in refused.value.hint
