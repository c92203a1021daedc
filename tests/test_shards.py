"""Weights above a size limit: in files that the Hub's libraries and every reader here take for one checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import load_file

from spec_convert import convert, validate
from spec_convert.errors import UsageError
from spec_convert.exporting import export
from spec_convert.operations import Header
from spec_convert.shards import INDEX, WEIGHTS, Shard, shard_size, shards

Make = Callable[..., Any]
LIMIT = 4096


@pytest.fixture
def split(eagle3: Make) -> Path:
    return Path(eagle3().convert(max_shard_size=LIMIT).output)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def test_no_file_but_one_of_a_single_tensor_is_above_the_limit(split: Path) -> None:
    files = parts(split)
    assert len(files) > 2
    assert not (split / WEIGHTS).exists()
    assert [file.name for file in files] == [
        f"model-{n:05}-of-{len(files):05}.safetensors" for n in range(1, len(files) + 1)
    ]
    for file in files:
        held = load_file(file)
        assert len(held) == 1 or sum(t.nbytes for t in held.values()) <= LIMIT


def test_the_shards_hold_what_one_file_would(split: Path, tmp_path: Path) -> None:
    whole = load_file(convert(tmp_path / "draft", tmp_path / "whole", verifier=tmp_path / "verifier").output / WEIGHTS)
    held = {name: (file.name, tensor) for file in parts(split) for name, tensor in load_file(file).items()}
    assert held.keys() == whole.keys()
    assert all(torch.equal(tensor, whole[name]) for name, (_, tensor) in held.items())
    index = json.loads((split / INDEX).read_text())
    assert index["weight_map"] == {name: file for name, (file, _) in held.items()}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())


def cut(sizes: list[int]) -> list[Shard]:
    return shards({f"t{n}": Header("U8", (size,)) for n, size in enumerate(sizes)}, LIMIT)


def test_they_are_cut_and_named_as_the_hubs_library_does_it() -> None:
    sizes = [3000, 1500, 40, 2000, 2000, 100, LIMIT]
    states = {f"t{n}": torch.zeros(size, dtype=torch.uint8) for n, size in enumerate(sizes)}
    theirs = split_torch_state_dict_into_shards(states, max_shard_size=LIMIT).filename_to_tensors
    assert {shard.name: list(shard.tensors) for shard in cut(sizes)} == theirs


def test_a_tensor_above_the_limit_has_a_file_of_its_own() -> None:
    assert [list(shard.tensors) for shard in cut([40, LIMIT + 1, 40])] == [["t0"], ["t1"], ["t2"]]


def test_the_same_again_gives_the_same_bytes(split: Path, tmp_path: Path) -> None:
    convert(tmp_path / "draft", tmp_path / "again", verifier=tmp_path / "verifier", max_shard_size=LIMIT)
    first, again = (
        {file.name: file.read_bytes() for file in folder.iterdir()} for folder in (split, tmp_path / "again")
    )
    assert first == again
    assert json.loads(first["conversion.json"])["flags"]["max_shard_size"] == LIMIT


@pytest.mark.parametrize("level", ["headers", "tensors", "forward"])
def test_a_split_directory_is_valid(split: Path, level: str) -> None:
    (checked,) = validate(split, level=level).checked
    assert [f for f in checked.findings if f.level != "note"] == []


def test_one_file_replaces_shards_and_shards_replace_one_file(split: Path, tmp_path: Path) -> None:
    for limit, kept in ((None, False), (LIMIT, True)):
        convert(tmp_path / "draft", split, verifier=tmp_path / "verifier", max_shard_size=limit, force=True)
        assert (split / INDEX).exists() == bool(parts(split)) == kept
        assert (split / WEIGHTS).exists() != kept


def test_an_export_is_split_and_reads_back(split: Path, tmp_path: Path) -> None:
    done = export(split, tmp_path / "native", to="vllm", max_shard_size="4KB")
    assert done.exact
    assert len(parts(done.output)) > 2


def test_below_the_limit_there_is_one_file_as_ever(eagle3: Make) -> None:
    output = eagle3().convert(max_shard_size="1GB").output
    assert sorted(file.name for file in output.iterdir()) == ["config.json", "conversion.json", WEIGHTS]


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("1.5mb", 1_500_000), (7, 7), (None, None)])
def test_sizes_are_read_as_the_hubs_library_reads_them(text: int | str | None, size: int | None) -> None:
    assert shard_size(text) == size


@pytest.mark.parametrize("text", ["5", "GB", "-1GB", "5 GB", "5GiB", "1e9GB", "", 0, -1, True])
def test_other_sizes_are_refused(text: int | str) -> None:
    with pytest.raises(UsageError, match="no size of a file"):
        shard_size(text)
