"""Opening a source: which files are taken, which are refused, and what it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spec_convert import sources
from spec_convert.errors import Unreadable
from spec_convert.open import open_checkpoint

ONE = {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


@pytest.fixture
def weights(write_safetensors: Any) -> Any:
    """Write a sound file of four bytes under any name, with tensors of the given names."""

    def write(name: str, *tensors: str) -> Path:
        names = tensors or ("a",)
        header = {n: {"dtype": "U8", "shape": [4], "data_offsets": [4 * i, 4 * i + 4]} for i, n in enumerate(names)}
        return write_safetensors(header, bytes(4 * len(names)), name)

    return write


def index(folder: Path, weight_map: Any, name: str = "model.safetensors.index.json") -> Path:
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize(
    "better", [("model.safetensors", "pytorch_model.bin"), ("pytorch_model.bin", "model.pt"), ("model.pt", "x.bin"),
               ("draft_model.pt", "eagle_meta.pt"), ("my.safetensors", "my.bin"), ("only.pt", "training_state.pt"),
               ("only.bin", "training_args.bin"), ("only.bin", "._only.bin")],
)  # fmt: skip
def test_the_better_known_file_wins(better: tuple[str, str], weights: Any, tmp_path: Path) -> None:
    for name in better:
        weights(name)
    assert open_checkpoint(tmp_path).weight_files == better[:1]


def test_several_candidates_are_listed_and_not_chosen_from(weights: Any, tmp_path: Path, refusal: Any) -> None:
    weights("one.safetensors")
    weights("two.bin")
    refused = refusal(tmp_path)
    assert refused.finding.rule == "ambiguous-weights"
    assert "one.safetensors, two.bin" in refused.message
    assert open_checkpoint(tmp_path / "two.bin").weight_files == ("two.bin",)


def test_leftovers_of_training_are_named_and_never_opened(tmp_path: Path, refusal: Any) -> None:
    for name in ("training_state.pt", "optimizer.bin", "rng_state_0.pth", "token_freq.pt"):
        os.mkfifo(tmp_path / f"{name}.pipe")  # opening one would wait for ever
        (tmp_path / name).write_bytes(b"\x80\x02.")
    refused = refusal(tmp_path)
    assert refused.finding.rule == "no-weights"
    assert "leftovers of training, which are never opened: optimizer.bin" in refused.message
    assert "leftovers" in refusal(tmp_path / "training_state.pt").message


def test_distributed_shards_are_refused_with_the_command_that_merges_them(tmp_path: Path, refusal: Any) -> None:
    (tmp_path / "__0_0.distcp").write_bytes(b"x")
    assert "dcp_to_torch" in refusal(tmp_path).hint


def test_a_single_file_of_any_name_takes_the_config_beside_it(weights: Any, tmp_path: Path) -> None:
    path = weights("epoch_3.ckpt")
    (tmp_path / "config.json").write_text('{"architectures": ["X"]}')
    assert open_checkpoint(path).architecture == "X"
    assert set(open_checkpoint(path).files.sizes()) == {"epoch_3.ckpt", "config.json"}


def test_a_checkpoint_without_config_has_none(weights: Any, tmp_path: Path) -> None:
    weights("model.safetensors")
    assert open_checkpoint(tmp_path).config is None


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "is empty"), (b"  \n", "is empty"), (b"[]", "JSON list"), (b"null", "JSON null"), (b"1", "JSON number"),
        (b"{", "not JSON"), (b"\xff\xfe{\x00}\x00", "not UTF-8"), (b'{"a": 1, "a": 1}', "'a' twice"),
        (b'{"b": {"a": 1, "a": 1}}', "'a' twice"), (b'{"a":' * 70 + b"1" + b"}" * 70, "more than 64 deep"),
        (b"[" * 100_000, "more than 64 deep"), (b'{"a": "\\ud800"}', "not text"), (b'{"a": 1' + b"1" * 5000 + b"}", ""),
        (b"version https://git-lfs.github.com/spec/v1\n", "not JSON"),
    ],
)  # fmt: skip
def test_a_config_that_is_no_json_object_is_refused(
    raw: bytes, says: str, weights: Any, tmp_path: Path, refusal: Any
) -> None:
    weights("model.safetensors")
    (tmp_path / "config.json").write_bytes(raw)
    refused = refusal(tmp_path)
    assert refused.finding.rule == "config-unreadable"
    assert refused.finding.where == "config.json"
    assert says in refused.message


def test_a_sharded_checkpoint_is_read_as_one(weights: Any, tmp_path: Path) -> None:
    weights("one.safetensors", "a", "b")
    weights("two.safetensors", "c")
    weight_map = {"c": "two.safetensors", "a": "one.safetensors", "b": "one.safetensors"}
    checkpoint = open_checkpoint(index(tmp_path, weight_map))
    assert set(checkpoint) == {"a", "b", "c"}
    assert checkpoint.weight_files == ("one.safetensors", "two.safetensors")


@pytest.mark.parametrize(
    ("weight_map", "says"),
    [
        ({"a": "one.safetensors", "b": "one.safetensors"}, "lacks tensors that model.safetensors.index.json promises"),
        ({"b": "one.safetensors"}, "lacks tensors"),
        ({"a": "two.safetensors"}, "shards that do not exist: two.safetensors"),
        ({"a": "../one.safetensors"}, "not a file of the same folder"),
        ({"a": "./one.safetensors"}, "not a file of the same folder"),
        ({"a": "/one.safetensors"}, "not a file of the same folder"),
        ({"a": "x\\one.safetensors"}, "not a file of the same folder"),
        ({"a": "one.safetensors\n"}, "not a file of the same folder"),
        ({"a": "..", "b": ""}, "not a file of the same folder"),
        ({"a": ""}, "not a file of the same folder"),
        ({"a": 1}, "names no file for 'a'"),
        ({"a": "training_state.pt"}, "leftover of training"),
        ({}, "has no weight_map"),
        ([], "has no weight_map"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(
    weight_map: Any, says: str, weights: Any, tmp_path: Path, refusal: Any
) -> None:
    weights("one.safetensors")
    refused = refusal(index(tmp_path, weight_map))
    assert refused.finding.rule == "index-mismatch"
    assert says in refused.message


def test_a_tensor_that_the_index_does_not_name_is_refused(weights: Any, tmp_path: Path, refusal: Any) -> None:
    weights("one.safetensors", "a", "b", "c", "d", "e")
    assert "does not name: b, c, d and 1 more" in refusal(index(tmp_path, {"a": "one.safetensors"})).message


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "draft_model.", "module.model."]
)
def test_a_prefix_that_all_names_share_is_left_out_of_the_keys(prefix: str, weights: Any) -> None:
    checkpoint = open_checkpoint(weights("model.safetensors", f"{prefix}fc.weight", f"{prefix}fc.bias"))
    assert set(checkpoint) == {"fc.weight", "fc.bias"}
    assert checkpoint.tensors["fc.bias"].name == f"{prefix}fc.bias"


@pytest.mark.parametrize("names", [("module.a", "b"), ("module.",), ("module.a", "_orig_mod.a"), ("model.a",)])
def test_any_other_prefix_stays(names: tuple[str, ...], weights: Any) -> None:
    assert set(open_checkpoint(weights("model.safetensors", *names))) == set(names)


@pytest.mark.parametrize(
    ("head", "says"),
    [
        (b"", "is empty"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\n<HTML><body>", "web page"),
        (b'{"a": 1}', "is text"),
        (b'{"abcd":{"e": 1}}', "is text"),
        (b"cposix\nsystem\n(X", "is text"),
        (b"(\x00lp0\n", "begins with 28 00 6c"),
        (b"x\x00" * 128 + b"y" + b"ustar\x00", "tar archive"),
        (bytes(8), "begins with 00 00"),
        (bytes(3), "begins with 00 00 00"),
    ],
)
def test_what_a_file_is_instead_of_weights_is_named(head: bytes, says: str, tmp_path: Path, refusal: Any) -> None:
    (tmp_path / "model.safetensors").write_bytes(head)
    refused = refusal(tmp_path)
    assert refused.finding.rule == "unreadable-container"
    assert says in refused.message
    assert refused.hint


def test_a_git_lfs_pointer_tells_to_pull(tmp_path: Path, refusal: Any) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused = refusal(tmp_path)
    assert refused.finding.rule == "git-lfs-pointer"
    assert "git lfs pull" in refused.hint


def hub_cache(tmp_path: Path, weights: Any) -> Path:
    """A snapshot as the Hub's client makes it, with one shared blob."""
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    weights("0a1b").rename(repository / "blobs" / "0a1b")
    (snapshot / "model.safetensors").symlink_to("../../blobs/0a1b")
    return snapshot


def test_the_links_of_a_hub_cache_are_followed(weights: Any, tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path, weights)
    assert "a" in open_checkpoint(snapshot)
    assert "a" in open_checkpoint(snapshot / "model.safetensors")
    (snapshot / "draft").mkdir()
    (snapshot / "draft" / "model.safetensors").symlink_to("../../../blobs/0a1b")
    assert "a" in open_checkpoint(snapshot / "draft")


def test_a_hub_cache_on_another_disk_is_still_one(weights: Any, tmp_path: Path) -> None:
    snapshot = hub_cache(tmp_path, weights)
    (tmp_path / "cache").symlink_to(snapshot.parents[1])
    assert "a" in open_checkpoint(tmp_path / "cache" / "snapshots" / snapshot.name)


def test_a_link_that_the_source_names_is_followed(weights: Any, tmp_path: Path) -> None:
    path = weights("0a.bin")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "model.bin").symlink_to(path)
    assert "a" in open_checkpoint(tmp_path / "elsewhere" / "model.bin")
    (tmp_path / "link").symlink_to(tmp_path)
    assert "a" in open_checkpoint(tmp_path / "link")


def test_a_link_that_leaves_the_folder_is_refused_with_its_target(weights: Any, tmp_path: Path, refusal: Any) -> None:
    path = weights("0a.bin")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(path)
    refused = refusal(folder)
    assert refused.finding.rule == "link-leaves-folder"
    assert f"is a link to {path}, outside {folder}" in refused.message
    assert "Put the file itself in its place" in refused.hint


def test_a_link_that_nobody_reads_may_lead_anywhere(weights: Any, tmp_path: Path) -> None:
    weights("model.safetensors")
    (tmp_path / "README.md").symlink_to("/etc/hostname")
    (tmp_path / "training_args.bin").symlink_to("gone")
    (tmp_path / "round").symlink_to("round")
    assert set(open_checkpoint(tmp_path).files.sizes()) == {"model.safetensors"}


def test_a_file_that_becomes_a_link_is_not_opened(weights: Any, tmp_path: Path) -> None:
    path = weights("model.safetensors")
    files = open_checkpoint(tmp_path).files
    path.unlink()
    path.symlink_to("/etc/hostname")
    for use in (files.open, files.path):
        with pytest.raises(Unreadable) as caught:
            use("model.safetensors")
        assert caught.value.finding.rule == "link-leaves-folder"


@pytest.mark.parametrize(
    ("target", "rule", "says"),
    [
        ("/dev/zero", "link-leaves-folder", "a link to /dev/zero"),
        ("gone", "not-a-file", "leads nowhere: No such file"),
        ("model.safetensors", "not-a-file", "leads nowhere: Too many levels"),
        (".", "not-a-file", "is a folder, not a file"),
        ("pipe", "not-a-file", "is a pipe, not a file"),
    ],
)
def test_a_link_to_something_that_is_no_file_is_refused(
    target: str, rule: str, says: str, tmp_path: Path, refusal: Any
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "model.safetensors").symlink_to(target)
    refused = refusal(tmp_path)
    assert refused.finding.rule == rule
    assert says in refused.message


def test_a_pipe_is_never_opened(tmp_path: Path, refusal: Any) -> None:
    os.mkfifo(tmp_path / "model.safetensors")  # opening it would wait for ever
    refused = refusal(tmp_path)
    assert refused.finding.rule == "not-a-file"
    assert "is a pipe, not a file" in refused.message


@pytest.mark.parametrize(
    "source", ["", "gone", "./gone/draft", "/gone/draft", "a/b/c", "org/na me", "org/../x", "org/x--y", "org/name@",
               "hf://", "hf://name", "~/x", "x" * 5000, "org/\0", "/dev/null", "org/x.git"]
)  # fmt: skip
def test_what_is_neither_a_path_nor_an_id_is_refused(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(source).finding.rule == "no-such-source"


class Asked:
    """Stands for a Hub repository and notes only what it was asked for."""

    def __init__(self, repo_id: str, revision: str | None) -> None:
        self.asked = repo_id, revision


@pytest.mark.parametrize(
    ("source", "revision", "asked"),
    [
        ("org/name", None, ("org/name", None)),
        ("org/name@v1.0", None, ("org/name", "v1.0")),
        ("org/name", "refs/pr/1", ("org/name", "refs/pr/1")),
        ("org/name@main", "main", ("org/name", "main")),
        ("hf://org/Na_me-1.5@abc", None, ("org/Na_me-1.5", "abc")),
    ],
)
def test_an_id_goes_to_the_hub(
    source: str, revision: str | None, asked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("spec_convert.hub.HubRepo", Asked)
    files, named = sources.locate(source, revision)
    assert (files.asked, named) == (asked, None)  # type: ignore[attr-defined]


def test_a_folder_wins_over_the_hub_unless_the_source_says_hf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("spec_convert.hub.HubRepo", Asked)
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert isinstance(sources.locate("org/name")[0], sources.LocalFolder)
    assert isinstance(sources.locate("hf://org/name")[0], Asked)


@pytest.mark.parametrize(("source", "revision"), [("here", "main"), ("org/name@a", "b")])
def test_a_revision_that_cannot_be_meant_is_refused(
    source: str, revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(Unreadable) as caught:
        open_checkpoint(source, revision=revision)
    assert caught.value.finding.rule == "no-such-source"


def test_opening_a_local_checkpoint_imports_nothing_heavy(weights: Any, tmp_path: Path) -> None:
    weights("model.safetensors", *(f"layers.0.{number}.weight" for number in range(20)))
    script = """
import sys
from spec_convert.open import open_checkpoint
open_checkpoint(sys.argv[1])
print(sorted({"numpy", "torch", "huggingface_hub", "pydantic", "safetensors", "zipfile"} & sys.modules.keys()))
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"


def test_a_prefix_repeated_a_hundred_times_is_only_a_long_name(weights: Any) -> None:
    assert list(open_checkpoint(weights("model.safetensors", "module." * 100 + "fc.weight"))) == ["fc.weight"]


def test_a_name_longer_than_any_real_one_is_refused(weights: Any, refusal: Any) -> None:
    refused = refusal(weights("model.safetensors", "module." * 200))
    assert "a name of 1400 letters, 'module.module." in refused.message


LFS = b"version https://git-lfs.github.com/spec/v1\n"
NO_WEIGHTS = {
    "GGUF": ("draft.gguf", b"GGUF\x03\x00\x00\x00", "no-weights", "holds only GGUF files of llama.cpp (draft.gguf)"),
    "GGUF, misnamed": ("model.safetensors", b"GGUF\x03\x00\x00\x00", "unreadable-container", "is a GGUF file"),
    "a pointer": ("model.safetensors", LFS, "git-lfs-pointer", "git-lfs pointer"),
    "a pointer to a pickle": ("pytorch_model.bin", LFS, "git-lfs-pointer", "git-lfs pointer"),
    "shards of FSDP": ("__0_0.distcp", b"x", "no-weights", "distributed shards"),
}


@pytest.mark.parametrize("what", NO_WEIGHTS)
def test_what_holds_no_weights_here_says_what_it_is_and_what_to_do(what: str, tmp_path: Path, refusal: Any) -> None:
    name, content, rule, says = NO_WEIGHTS[what]
    (tmp_path / name).write_bytes(content)
    refused = refusal(tmp_path)
    assert refused.finding.rule == rule
    assert says in refused.message
    assert refused.hint
    assert refusal(tmp_path / name).hint


def test_the_pointers_of_a_sharded_clone_are_told_as_what_they_are(tmp_path: Path, refusal: Any) -> None:
    (tmp_path / "one.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\nsize 12\n")
    refused = refusal(index(tmp_path, {"a": "one.safetensors"}))
    assert (refused.finding.rule, refused.hint) == ("git-lfs-pointer", "Run: git lfs pull")
