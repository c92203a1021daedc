"""An output directory appears whole or not at all, and never over something that must not be lost."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from spec_convert.errors import UsageError
from spec_convert.sources import LocalFolder
from spec_convert.staging import staged

Stage = Callable[..., AbstractContextManager[Path]]


def model_folder(folder: Path, text: str = "{}") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(text)
    return folder


def files_of(folder: Path) -> LocalFolder:
    return LocalFolder(root=folder, label=str(folder))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_half_way(folder: Path, failure: BaseException) -> None:
    (folder / "config.json").write_text("half")
    raise failure


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "work" / "out"


@pytest.fixture
def stage(tmp_path: Path, output: Path) -> Stage:
    """`staged` with a source that lies elsewhere: `stage(output, force=True)`."""
    source = files_of(model_folder(tmp_path / "source"))
    return partial(staged, untouchable=[source], force=False)


def test_the_output_has_its_name_only_when_it_is_whole(stage: Stage, output: Path) -> None:
    with stage(output) as folder:
        (folder / "config.json").write_text("new")
        assert not output.exists()

    assert names(output.parent) == ["out"]
    assert (output / "config.json").read_text() == "new"


@pytest.mark.parametrize("failure", [ValueError("a bug"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(stage: Stage, output: Path, failure: BaseException) -> None:
    with pytest.raises(type(failure)), stage(output) as folder:
        fail_half_way(folder, failure)

    assert names(output.parent) == []


def test_what_a_killed_run_left_is_gone_after_the_next_one(stage: Stage, output: Path) -> None:
    for left in (".out.partial", ".out.replaced"):
        (output.parent / left / "deep").mkdir(parents=True)
        (output.parent / left / "model.safetensors").write_text("half")

    with stage(output) as folder:
        (folder / "config.json").write_text("new")

    assert names(output.parent) == ["out"]
    assert names(output) == ["config.json"]


def test_an_existing_output_needs_force(stage: Stage, output: Path) -> None:
    model_folder(output, "old")

    with pytest.raises(UsageError, match="exists") as refused, stage(output):
        pass

    assert "--force" in refused.value.hint
    assert (output / "config.json").read_text() == "old"


def test_force_replaces_the_whole_folder(stage: Stage, output: Path) -> None:
    (model_folder(output, "old") / "model-00001-of-00002.safetensors").write_text("stale shard")

    with stage(output, force=True) as folder:
        (folder / "config.json").write_text("new")
        assert (output / "config.json").read_text() == "old"

    assert names(output.parent) == ["out"]
    assert {path.name: path.read_text() for path in output.iterdir()} == {"config.json": "new"}


def test_a_failed_replacement_leaves_the_old_output(stage: Stage, output: Path) -> None:
    model_folder(output, "old")

    with pytest.raises(ValueError, match="a bug"), stage(output, force=True):
        raise ValueError("a bug")

    assert names(output.parent) == ["out"]
    assert (output / "config.json").read_text() == "old"


def test_an_empty_folder_needs_no_force(stage: Stage, output: Path) -> None:
    output.mkdir(parents=True)

    with stage(output) as folder:
        (folder / "config.json").write_text("new")

    assert names(output) == ["config.json"]


def test_force_keeps_a_folder_that_holds_anything_of_somebody_else(stage: Stage, output: Path) -> None:
    for content in ("years of work", "more years"):
        output.mkdir(parents=True, exist_ok=True)
        (output / "thesis.tex").write_text(content)
        with stage(output, force=True) as folder:
            (folder / "config.json").write_text("new")

    assert names(output) == ["config.json"]
    assert (output.parent / "out.replaced" / "thesis.tex").read_text() == "years of work"
    assert (output.parent / "out.replaced-2" / "thesis.tex").read_text() == "more years"


def test_the_folder_one_stands_in_is_never_replaced(
    stage: Stage, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_folder(output)
    (output / "inner").mkdir()
    monkeypatch.chdir(output / "inner")

    with pytest.raises(UsageError, match="where you are"), stage(output, force=True):
        pass

    assert names(output) == ["config.json", "inner"]


def test_force_replaces_neither_a_file_nor_a_link(stage: Stage, output: Path, tmp_path: Path) -> None:
    target = model_folder(tmp_path / "target")
    output.parent.mkdir()
    output.symlink_to(target)
    (output.parent / "file").write_text("kept")

    for there in (output, output.parent / "file"):
        with pytest.raises(UsageError, match="is not a folder"), stage(there, force=True):
            pass

    assert output.is_symlink()
    assert names(target) == ["config.json"]


def test_the_source_and_the_folders_above_it_are_never_the_output(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "models" / "draft")
    (tmp_path / "models" / "config.json").write_text("{}")

    for output in (source, source.parent, tmp_path / "elsewhere" / ".." / "models" / "draft"):
        with pytest.raises(UsageError, match="holds"), staged(output, untouchable=[files_of(source)], force=True):
            pass

    assert names(source) == ["config.json"]


def test_a_source_behind_a_link_is_never_the_output(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "draft")
    (tmp_path / "link").symlink_to(tmp_path / "draft")

    through_link = files_of(tmp_path / "link")
    with pytest.raises(UsageError, match="holds"), staged(source, untouchable=[through_link], force=True):
        pass


def test_a_hub_cache_is_never_the_output_although_its_files_are_links(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0a1b").write_text("{}")
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to(tmp_path / "blobs" / "0a1b")

    for output in (snapshot, tmp_path / "blobs"):
        with pytest.raises(UsageError, match="holds"), staged(output, untouchable=[files_of(snapshot)], force=True):
            pass

    assert (snapshot / "config.json").read_text() == "{}"


def test_the_output_may_lie_inside_the_source(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "draft")

    with staged(source / "unified", untouchable=[files_of(source)], force=False) as folder:
        (folder / "config.json").write_text("new")

    assert names(source) == ["config.json", "unified"]


def test_two_writers_of_one_output_do_not_meet(stage: Stage, output: Path) -> None:
    with stage(output) as folder:
        (folder / "config.json").write_text("first")
        with pytest.raises(UsageError, match="another process"), stage(output):
            pass

    assert (output / "config.json").read_text() == "first"


def test_an_output_that_appeared_in_the_meantime_is_not_replaced(stage: Stage, output: Path) -> None:
    with pytest.raises(UsageError, match="exists"), stage(output):
        model_folder(output, "first")

    assert names(output.parent) == ["out"]
    assert (output / "config.json").read_text() == "first"


def test_a_full_disk_is_a_clear_error(stage: Stage, output: Path) -> None:
    with pytest.raises(UsageError, match="No space left") as refused, stage(output):
        raise OSError(errno.ENOSPC, "No space left on device")

    assert "make room" in refused.value.hint
    assert names(output.parent) == []


def test_an_output_below_a_file_is_a_clear_error(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match="cannot write"), stage(tmp_path / "file" / "out"):
        pass
