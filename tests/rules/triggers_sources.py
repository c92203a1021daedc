"""Where a checkpoint comes from: what each way of being unreadable looks like."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ..hub.server import MEMBER
from .trigger import Findings, Make, Triggers, validate

TRIGGERS = Triggers()


class Payload:
    """What a malicious pickle holds: loading it calls a function of the attacker's choice."""

    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


def sharded(folder: Path) -> Path:
    """The same weights as two shards and their index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {f"model-0000{part}-of-00002.safetensors": sorted(tensors)[part - 1 :: 2] for part in (1, 2)}
    for file, names in shards.items():
        save_file({name: tensors[name] for name in names}, folder / file)
    index = {name: file for file, names in shards.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


@TRIGGERS.rule("no-such-source")
def a_path_that_does_not_exist(make: Make, broken: bool) -> Findings:
    folder = make.eagle().write()
    return validate(folder / "no" / "such" / "folder" if broken else folder)


@TRIGGERS.rule("link-leaves-folder")
def weights_that_are_a_link_to_elsewhere(make: Make, broken: bool) -> Findings:
    folder = make.eagle().write()
    place = folder.parent / "elsewhere" if broken else folder / "blobs"
    place.mkdir()
    target = (folder / "model.safetensors").rename(place / "weights")
    (folder / "model.safetensors").symlink_to(target)
    return validate(folder)


@TRIGGERS.rule("not-a-file")
def a_pipe_that_nobody_writes_to(make: Make, broken: bool) -> Findings:
    folder = make.eagle().write()
    if broken:
        (folder / "model.safetensors").unlink()
        os.mkfifo(folder / "model.safetensors")
    return validate(folder)


@TRIGGERS.rule("no-weights")
def a_config_without_weights(make: Make, broken: bool) -> Findings:
    folder = make.eagle().write()
    if broken:
        (folder / "model.safetensors").unlink()
    return validate(folder)


@TRIGGERS.rule("ambiguous-weights")
def two_files_of_weights(make: Make, broken: bool) -> Findings:
    folder = make.eagle().write()
    (folder / "model.safetensors").rename(folder / "step1000.safetensors")
    if broken:
        shutil.copy(folder / "step1000.safetensors", folder / "step2000.safetensors")
    return validate(folder)


@TRIGGERS.rule("git-lfs-pointer")
def a_clone_without_git_lfs(make: Make, broken: bool) -> Findings:
    folder = make.eagle().write()
    if broken:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4096\n"
        (folder / "model.safetensors").write_text(pointer)
    return validate(folder)


@TRIGGERS.rule("unreadable-container")
def a_download_that_broke_off(make: Make, broken: bool) -> Findings:
    folder = make.eagle().write()
    if broken:
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[:-1])
    return validate(folder)


@TRIGGERS.rule("unsafe-pickle")
def a_pickle_that_calls_the_shell(make: Make, broken: bool) -> Findings:
    draft = make.eagle()
    folder = draft.write()
    (folder / "model.safetensors").unlink()
    torch.save({**draft.tensors, **({"payload": Payload()} if broken else {})}, folder / "pytorch_model.bin")
    return validate(folder)


@TRIGGERS.rule("index-mismatch")
def a_shard_that_was_not_downloaded(make: Make, broken: bool) -> Findings:
    folder = sharded(make.eagle().write())
    if broken:
        (folder / "model-00002-of-00002.safetensors").unlink()
    return validate(folder)


@TRIGGERS.rule("config-unreadable")
def a_config_that_is_cut_off(make: Make, broken: bool) -> Findings:
    folder = make.eagle().write()
    if broken:
        (folder / "config.json").write_text('{"hidden_size": ')
    return validate(folder)


@TRIGGERS.rule("hub-not-found")
def a_misspelt_id(make: Make, broken: bool) -> Findings:
    make.hub.publish("org/draft", make.eagle().write())
    return validate("org/drafft" if broken else "org/draft")


@TRIGGERS.rule("hub-gated")
def conditions_that_nobody_accepted(make: Make, broken: bool) -> Findings:
    make.hub.publish("org/draft", make.eagle().write(), gated=broken)
    return validate("org/draft")


@TRIGGERS.rule("hub-unauthorised")
def a_token_that_has_expired(make: Make, broken: bool) -> Findings:
    make.hub.publish("org/draft", make.eagle().write(), private=True)
    make.monkeypatch.setenv("HF_TOKEN", "hf_expired" if broken else MEMBER)
    return validate("org/draft")


@TRIGGERS.rule("hub-no-network")
def a_hub_that_nobody_runs(make: Make, broken: bool) -> Findings:
    make.hub.publish("org/draft", make.eagle().write())
    if broken:
        make.unreachable  # noqa: B018  points the client somewhere else
    return validate("org/draft")


@TRIGGERS.rule("hub-transfer")
def a_web_page_in_place_of_the_hub(make: Make, broken: bool) -> Findings:
    make.hub.publish("org/draft", make.eagle().write())
    make.hub.mood = "web page" if broken else ""
    return validate("org/draft")
