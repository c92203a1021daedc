"""Open a checkpoint from anywhere, reading headers only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.containers.choose import choose_weights, is_leftover
from spec_convert.containers.headers import read_headers
from spec_convert.containers.index import check_shard, read_index
from spec_convert.containers.refusal import unreadable
from spec_convert.containers.strict_json import MAX_LENGTH, parse_object
from spec_convert.sources import locate
from spec_convert.tensor import Files, Tensor

# What data parallelism, torch.compile and trainers that hold the draft beside its verifier put before every name.
WRAPPERS = ("module.", "_orig_mod.", "draft_model.")
# Part of the names of a whole language model, which has no fusion; of a draft's only when it was saved from a wrapper.
MODEL, FUSION = "model.", "model.fc.weight"


def open_checkpoint(source: str | Path, *, revision: str | None = None) -> Checkpoint:
    """The checkpoint in a folder, a weight file, or a Hub repository (``org/name[@revision]``, ``hf://org/name``).

    Nothing is executed and no weight is read. Whatever cannot be trusted raises ``Unreadable``.
    """
    files, named = locate(source, revision)
    sizes = files.sizes()
    config = read_config(files)
    # A file that the user names may be called anything, except like something that must never be opened.
    weights = named if named and not is_leftover(named) else choose_weights(sizes, source=files.label)
    if weights.endswith(".index.json"):
        containers, tensors, metadata, weight_files = _shards(files, sizes, weights)
    else:
        container, tensors, metadata = read_headers(files, weights, sizes[weights])
        containers, weight_files = {container}, (weights,)
    return Checkpoint(
        source=str(source),
        files=files,
        config=config,
        tensors=_unwrapped(tensors),
        container="+".join(sorted(containers)),
        weight_files=weight_files,
        metadata=metadata,
    )


def read_config(files: Files) -> dict[str, Any] | None:
    """config.json as an object, or None when there is none. Raises Unreadable when it is damaged."""
    sizes = files.sizes()
    if "config.json" not in sizes:
        return None
    hint = "Take config.json from the publisher's repository again."
    raw = _small(files, sizes, "config.json", "config-unreadable")
    return parse_object(raw, where="config.json", rule="config-unreadable", hint=hint)


def _shards(
    files: Files, sizes: Mapping[str, int], index: str
) -> tuple[set[str], dict[str, Tensor], dict[str, str], tuple[str, ...]]:
    raw = _small(files, sizes, index, "index-mismatch")
    shards = read_index(raw, index=index, there=sizes)
    containers: set[str] = set()
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for shard, promised in shards.items():
        container, held, said = read_headers(files, shard, sizes[shard])
        check_shard(shard, promised=promised, held=held, index=index)
        containers.add(container)
        tensors |= held
        metadata |= said
    return containers, tensors, metadata, tuple(shards)


def _small(files: Files, sizes: Mapping[str, int], name: str, rule: str) -> bytes:
    if sizes[name] > MAX_LENGTH:
        raise unreadable(rule, name, f"has {sizes[name]} bytes; no such file needs more than {MAX_LENGTH}")
    with files.open(name) as stream:
        return stream.read()


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Keyed without the prefixes that all names share; the tensors keep the names that the file gives them."""
    names = list(tensors)
    while prefix := _shared_prefix(names):
        names = [name.removeprefix(prefix) for name in names]
    return dict(zip(names, tensors.values(), strict=True))


def _shared_prefix(names: list[str]) -> str | None:
    prefixes = (*WRAPPERS, MODEL) if FUSION in names else WRAPPERS
    return next((p for p in prefixes if names and all(n.startswith(p) and n != p for n in names)), None)
