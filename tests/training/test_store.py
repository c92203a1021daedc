"""A store grows by whole shards, is read by memory map, and says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from spec_convert.errors import UsageError
from spec_convert.training.store import writing as store_writing
from spec_convert.training.store.manifest import NAME, Manifest, TokenizerFacts
from spec_convert.training.store.reading import open_store
from spec_convert.training.store.sample import Sample
from spec_convert.training.store.writing import writing

from .small import random_samples

LENGTHS = [3, 1, 7, 2, 5]


def manifest(**changes: object) -> Manifest:
    tokenizer = TokenizerFacts(name="a model", fingerprint="0" * 64, vocab_size=256)
    draft = Manifest(
        kind="prepared", request={"seed": 1}, tokenizer=tokenizer, made_with={}, counts={}, planned_shards=2
    )
    return draft.model_copy(update=changes)


def same(one: Sample, other: Sample) -> bool:
    return (
        one.index == other.index
        and torch.equal(one.input_ids, other.input_ids)
        and torch.equal(one.loss_mask, other.loss_mask)
    )


def test_samples_come_back_in_order_whatever_order_the_shards_were_written_in(tmp_path: Path) -> None:
    samples = random_samples(LENGTHS)
    with writing(tmp_path / "store", manifest()) as writer:
        writer.write(1, samples[3:])
    with writing(tmp_path / "store", manifest()) as writer:
        assert writer.done == {1}
        writer.write(0, samples[:3])
    store = open_store(tmp_path / "store")
    store.verify()
    assert store.lengths.tolist() == LENGTHS
    assert all(map(same, store, samples))


def test_what_a_kill_left_is_removed_and_written_again(tmp_path: Path) -> None:
    samples, folder = random_samples(LENGTHS), tmp_path / "store"
    with writing(folder, manifest()) as writer:
        writer.write(0, samples[:3])
    (folder / "shard-00001.safetensors").write_bytes(b"not named by the manifest")
    (folder / "shard-00001.partial").write_bytes(b"half of it")
    with writing(folder, manifest()) as writer:
        assert not list(folder.glob("shard-00001*"))
        writer.write(1, samples[3:])
    assert len(open_store(folder)) == len(samples)


def test_another_request_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    with writing(tmp_path, manifest()) as writer:
        writer.write(0, random_samples([4]))
    with pytest.raises(UsageError, match="its seed is 1, not 2"), writing(tmp_path, manifest(request={"seed": 2})):
        pass


def test_where_nothing_is_finished_another_request_begins_anew(tmp_path: Path) -> None:
    with writing(tmp_path, manifest()):
        pass
    with writing(tmp_path, manifest(request={"seed": 2})) as writer:
        writer.write(0, random_samples([4]))
    with writing(tmp_path, manifest(request={"seed": 2})) as writer:
        assert writer.done == {0}


def test_shards_may_be_read_by_whoever_may_read_the_manifest(tmp_path: Path) -> None:
    with writing(tmp_path, manifest()) as writer:
        writer.write(0, random_samples([4]))
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_two_processes_do_not_write_one_store(tmp_path: Path) -> None:
    with (
        writing(tmp_path, manifest()),
        pytest.raises(UsageError, match="another process is writing"),
        writing(tmp_path, manifest()),
    ):
        pass


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(UsageError, match=r"holds thesis\.tex"), writing(tmp_path, manifest()):
        pass


def test_a_folder_that_takes_no_files_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root, who may write everywhere."""

    def denied(path: Path, text: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(store_writing, "replace_text", denied)
        with (
            pytest.raises(UsageError, match=f"cannot write {tmp_path}: Permission denied"),
            writing(tmp_path, manifest()),
        ):
            pass
    with writing(tmp_path, manifest()):
        pass  # and the folder is not locked any more


def test_an_unfinished_store_is_not_read(tmp_path: Path) -> None:
    with writing(tmp_path, manifest()) as writer:
        writer.write(0, random_samples([4]))
    with pytest.raises(UsageError, match="1 of 2 shards"):
        open_store(tmp_path)


@pytest.mark.parametrize("text", ["", "{}", '{"schema_version": 2}', "[]"])
def test_a_damaged_manifest_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UsageError, match="is no manifest of a store"):
        open_store(tmp_path)


def test_a_flipped_byte_is_found(tmp_path: Path) -> None:
    with writing(tmp_path, manifest(planned_shards=1)) as writer:
        writer.write(0, random_samples(LENGTHS))
    path = tmp_path / "shard-00000.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match="is not as it was written"):
        open_store(tmp_path).verify()
