"""Folders whose files are not what they seem: links that lead elsewhere, pipes, devices, indexes that point away."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .making import FIXTURES, Draft, add, case

OUTSIDE = "link-leaves-folder"
ODD = "not-a-file"
INDEX = "index-mismatch"


def linked(name: str, target: Callable[[Draft], Path | str]) -> Callable[[Draft], None]:
    """A file of the checkpoint replaced by a link."""

    def make(draft: Draft) -> None:
        (draft.checkpoint / name).unlink(missing_ok=True)
        (draft.checkpoint / name).symlink_to(target(draft))

    return make


for file in ("config.json", "model.safetensors"):
    add(f"{file}: a link to an absolute path", OUTSIDE, linked(file, lambda d, file=file: d.outside / file))
    add(f"{file}: a link to a relative path", OUTSIDE, linked(file, lambda _, file=file: f"../../outside/{file}"))
    add(f"{file}: a link to /etc/passwd", OUTSIDE, linked(file, lambda _: "/etc/passwd"))
    add(f"{file}: a link to a device", OUTSIDE, linked(file, lambda _: "/dev/zero"))
    add(f"{file}: a link to this process", OUTSIDE, linked(file, lambda _: "/proc/self/environ"))
    add(f"{file}: a link to itself", ODD, linked(file, lambda _, file=file: file))
    add(f"{file}: a link to nothing", ODD, linked(file, lambda _: "gone"))
    add(f"{file}: a link to the folder itself", ODD, linked(file, lambda _: "."))
    add(f"{file}: a link to a folder outside", OUTSIDE, linked(file, lambda d: d.outside))


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Draft], None]:
    def place(draft: Draft) -> None:
        (draft.checkpoint / name).unlink(missing_ok=True)
        make(draft.checkpoint / name)

    return place


def bind(path: Path) -> None:
    """A socket, bound from within its folder: the name of one may only have a hundred letters."""
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


for file, rule in (("config.json", "config-missing"), ("model.safetensors", "no-weights")):
    add(f"{file}: a pipe", ODD, replaced(file, os.mkfifo))
    add(f"{file}: a socket", ODD, replaced(file, bind))
    add(f"{file}: a folder", rule, replaced(file, Path.mkdir))

for file in ("pytorch_model.bin", "other.safetensors", "model.safetensors.index.json", "tokenizer.json"):
    add(f"{file}: a pipe beside sound weights", ODD, replaced(file, os.mkfifo))
for file in ("training_state.pt", "README.md", ".config.json", "optimizer.bin"):
    add(f"{file}: a pipe that nobody opens", None, replaced(file, os.mkfifo))
    add(f"{file}: a link that nobody follows", None, linked(file, lambda d: d.outside / "config.json"))


@case("a link through a folder that is a link", OUTSIDE)
def through_a_folder(draft: Draft) -> None:
    (draft.checkpoint / "inner").symlink_to(draft.outside)
    linked("config.json", lambda _: "inner/config.json")(draft)


@case("a link to a folder with the same beginning", OUTSIDE)
def same_beginning(draft: Draft) -> None:
    shutil.copytree(draft.outside, draft.folder / "checkpoint-secret")
    linked("config.json", lambda _: "../checkpoint-secret/config.json")(draft)


@case("a Hub cache whose blobs are a link", OUTSIDE)
def false_blobs(draft: Draft) -> Path:
    snapshot = draft.folder / "models--a--b" / "snapshots" / "0"
    shutil.move(draft.checkpoint, snapshot)
    (draft.folder / "models--a--b" / "blobs").symlink_to(draft.outside)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../blobs/config.json")
    return snapshot


@case("a Hub cache whose link leads to another repository", OUTSIDE)
def other_repository(draft: Draft) -> Path:
    snapshot = draft.folder / "models--a--b" / "snapshots" / "0"
    shutil.move(draft.checkpoint, snapshot)
    other = draft.folder.parent / "models--private--secret" / "blobs"
    other.mkdir(parents=True, exist_ok=True)
    shutil.copy(draft.outside / "config.json", other / "0a")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../../../models--private--secret/blobs/0a")
    return snapshot


@case("a Hub cache as the Hub's client makes it", None)
def sound_cache(draft: Draft) -> Path:
    repository = draft.folder / "models--a--b"
    snapshot, blobs = repository / "snapshots" / ("0" * 40), repository / "blobs"
    snapshot.mkdir(parents=True)
    shutil.move(draft.checkpoint, blobs)
    for file in list(blobs.iterdir()):
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    return snapshot


@case("links that stay inside the folder", None)
def inside(draft: Draft) -> None:
    (draft.checkpoint / "files").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.move(draft.checkpoint / name, draft.checkpoint / "files" / name)
        (draft.checkpoint / name).symlink_to(f"files/{name}")


@case("a link to the whole folder, which the source names", None)
def whole_folder(draft: Draft) -> Path:
    (draft.folder / "link").symlink_to("checkpoint")
    return draft.folder / "link"


@case("a link to the weights, which the source names", None)
def one_file(draft: Draft) -> Path:
    (draft.folder / "weights").mkdir()
    shutil.move(draft.weights, draft.folder / "weights" / "0a.safetensors")
    draft.weights.symlink_to("../weights/0a.safetensors")
    return draft.weights


@case("a config outside, beside weights that the source names", OUTSIDE)
def named_weights(draft: Draft) -> Path:
    linked("config.json", lambda d: d.outside / "config.json")(draft)
    return draft.weights


@case("modules that Python would import", None)
def planted(draft: Draft) -> None:
    for name in ("torch.py", "numpy.py", "sitecustomize.py", "spec_convert.py", "modeling_eagle.py", "__init__.py"):
        (draft.checkpoint / name).write_text("import os\nos.system('touch executed')\n")
    draft.set_config(auto_map={"AutoModel": "modeling_eagle.Eagle"}, trust_remote_code=True)


@case("ten thousand files", None, few=True)
def many_files(draft: Draft) -> None:
    for number in range(10_000):
        (draft.checkpoint / f"{number}.txt").touch()


@case("a thousand weight files", "ambiguous-weights")
def many_weights(draft: Draft) -> None:
    draft.weights.unlink()
    for number in range(1000):
        (draft.checkpoint / f"{number:0200}.bin").touch()


@case("a file name that clears the screen", "ambiguous-weights")
def odd_names(draft: Draft) -> None:
    draft.weights.rename(draft.checkpoint / "\x1b[2J\n::error::.safetensors")
    (draft.checkpoint / b"\xff\xfe.bin".decode("utf-8", "surrogateescape")).touch()


@case("a file name that is no text", None)
def no_text(draft: Draft) -> None:
    draft.weights.rename(draft.checkpoint / b"\xff\x1b.safetensors".decode("utf-8", "surrogateescape"))


if os.geteuid() != 0:  # root reads everything

    @case("weights that may not be read", "no-such-source")
    def forbidden(draft: Draft) -> None:
        draft.weights.chmod(0)


def indexed(change: Callable[[Draft, dict[str, Any]], Any]) -> Callable[[Draft], None]:
    """Sound shards; the index changed. What `change` returns, if anything, is the new weight map."""

    def make(draft: Draft) -> None:
        draft.shard()
        index = json.loads(draft.index.read_text())
        new = change(draft, index["weight_map"])
        draft.index.write_text(json.dumps(index if new is None else {"weight_map": new}))

    return make


for name, shard in {
    "an absolute path": "/etc/passwd",
    "a path upwards": "../../outside/model.safetensors",
    "a path downwards": "inner/0.safetensors",
    "a path that comes back": "../checkpoint/0.safetensors",
    "a path in another system's words": "..\\..\\outside\\model.safetensors",
    "an address": "https://localhost/model.safetensors",
    "another file of the folder": "config.json",
    "the index itself": "model.safetensors.index.json",
    "a leftover of training": "training_state.pt",
    "nothing": "",
    "the folder": ".",
    "a name with a zero": "0.safetensors\0",
    "a name that clears the screen": "\x1b[2J.safetensors",
    "half a UTF-16 pair": "\ud800.safetensors",
    "a name of a megabyte": "a" * 1_000_000,
    "a user's home": "~/model.safetensors",
}.items():
    add(f"a shard that is {name}", INDEX, indexed(lambda _, shards, shard=shard: shards.update({"fc.weight": shard})))


def shard_as(make: Callable[[Path], object]) -> Callable[[Draft], None]:
    def place(draft: Draft) -> None:
        draft.shard()
        (draft.checkpoint / "1.safetensors").unlink()
        make(draft.checkpoint / "1.safetensors")

    return place


add("a shard that is a pipe", ODD, shard_as(os.mkfifo))
add("a shard that is a folder", INDEX, shard_as(Path.mkdir))
add("a shard that is a link to a device", OUTSIDE, shard_as(lambda path: path.symlink_to("/dev/zero")))
add(
    "a shard that is a link outside", OUTSIDE, shard_as(lambda path: path.symlink_to("../../outside/model.safetensors"))
)
add("a shard that is a link to the other", INDEX, shard_as(lambda path: path.symlink_to("0.safetensors")))
add("a shard that is a link to itself", ODD, shard_as(lambda path: path.symlink_to(path.name)))
one_for_all = indexed(lambda _, shards: dict.fromkeys(map(str, range(490_000)), "0.safetensors"))
one_for_each = indexed(lambda _, shards: {f"{n}": f"{n}.safetensors" for n in range(200_000)})
add("half a million entries of one shard", INDEX, one_for_all, few=True)
add("two hundred thousand shards", INDEX, one_for_each, few=True)
add("an index that promises more", INDEX, indexed(lambda _, shards: shards.update({"more": "0.safetensors"})))
add("an index that names too little", INDEX, indexed(lambda _, shards: shards.pop("fc.weight") and None))
add("a tensor in the wrong shard", INDEX, indexed(lambda _, shards: shards.update({"fc.weight": "1.safetensors"})))
add("a weight map that is a list", INDEX, indexed(lambda _, shards: [["fc.weight", "0.safetensors"]]))
add("shards that are numbers", INDEX, indexed(lambda _, shards: dict.fromkeys(shards, 0)))
add("shards that are lists", INDEX, indexed(lambda _, shards: {key: ["0.safetensors"] for key in shards}))


@case("an index that is a leftover beside sound weights", None)
def leftover_index(draft: Draft) -> None:
    draft.index.write_text(json.dumps({"weight_map": {"a": "../../outside/model.safetensors"}}))


@case("an index of a hundred megabytes", INDEX)
def huge_index(draft: Draft) -> None:
    from .making import sparse

    draft.shard()
    sparse(draft.index, 100_000_000, b'{"weight_map": {')


@case("an index that is a pickle", INDEX)
def pickled_index(draft: Draft) -> None:
    draft.shard()
    shutil.copy(FIXTURES / "pickle_os_system_raw" / "checkpoint" / "pytorch_model.bin", draft.index)
