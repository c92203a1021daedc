"""Growing a store shard by shard, so that a kill at any instant loses at most the shard at work."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from spec_convert.errors import UsageError
from spec_convert.training.store.manifest import NAME, Counts, Manifest, Shard, read_manifest, replace_text
from spec_convert.training.store.sample import Sample


class StoreWriter:
    """The folder is this process's alone; a shard counts from the instant in which the manifest names it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest

    @property
    def done(self) -> frozenset[int]:
        """The numbers of the finished shards."""
        return frozenset(shard.number for shard in self.manifest.shards)

    def write(self, number: int, samples: Sequence[Sample]) -> Shard:
        """Shard ``number`` of those planned."""
        import torch
        from safetensors.torch import save_file

        lengths = torch.tensor([0, *map(len, samples)])
        tensors = {
            "index": torch.tensor([sample.index for sample in samples]),
            "offsets": lengths.cumsum(0),
            "input_ids": torch.cat([sample.input_ids for sample in samples]).int(),
            "loss_mask": torch.cat([sample.loss_mask for sample in samples]),
        }
        states = [sample.hidden_states for sample in samples if sample.hidden_states is not None]
        if states:
            tensors["hidden_states"] = torch.cat(states)
        path = self.folder / f"shard-{number:05}.safetensors"
        partial = path.with_suffix(".partial")
        save_file(tensors, partial)
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        partial.rename(path)
        shard = Shard(
            number=number, file=path.name, samples=len(samples), tokens=int(lengths.sum()),
            bytes=path.stat().st_size, sha256=digest,
        )  # fmt: skip
        shards = sorted((*self.manifest.shards, shard), key=lambda one: one.number)
        self._update(shards=tuple(shards))
        return shard

    def count(self, counts: Counts) -> None:
        """Replace what the manifest says became of the rows."""
        self._update(counts=counts)

    def _update(self, **changed: object) -> None:
        self.manifest = self.manifest.model_copy(update=changed)
        replace_text(self.folder / NAME, self.manifest.model_dump_json(indent=2) + "\n")


@contextmanager
def writing(folder: Path, draft: Manifest) -> Iterator[StoreWriter]:
    """The store at ``folder``, begun with ``draft`` or gone on with where an earlier run of the same request ended.

    Raises UsageError when the folder holds something else, a store of another request, or another process at work.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
    except OSError as reason:
        raise UsageError(f"cannot write {folder}: {reason.strerror}", hint="give another OUTPUT folder") from reason
    try:
        yield StoreWriter(folder, _resumed(folder, draft))
    finally:
        os.close(lock)


def _lock(folder: Path) -> int:
    """Ends with this process, however it ends."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise UsageError(f"another process is writing {folder}", hint="wait for it, or give another OUTPUT") from None
    return lock


def _resumed(folder: Path, draft: Manifest) -> Manifest:
    """What is there already, without what a kill left half done."""
    if not (folder / NAME).exists():
        if foreign := sorted(name for name in os.listdir(folder) if not name.endswith(".partial")):
            raise UsageError(f"{folder} is not empty: it holds {foreign[0]}", hint="give an OUTPUT folder of its own")
        replace_text(folder / NAME, draft.model_dump_json(indent=2) + "\n")
        return draft
    there = read_manifest(folder)
    _require_same(folder, there, draft)
    finished = {shard.file: shard for shard in there.shards}
    for path in (*folder.glob("shard-*.safetensors"), *folder.glob("*.partial"), *folder.glob(".*.partial")):
        if path.name not in finished:
            path.unlink()
    for shard in finished.values():
        path = folder / shard.file
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise UsageError(f"{path} is not as it was written", hint="remove the folder and run the command again")
    return there


def _require_same(folder: Path, there: Manifest, draft: Manifest) -> None:
    """Goes on only with what was asked for before."""
    old = {"kind": there.kind, "planned_shards": there.planned_shards, **there.request}
    new = {"kind": draft.kind, "planned_shards": draft.planned_shards, **draft.request}
    for key in sorted(old | new):
        if old.get(key) != new.get(key):
            raise UsageError(
                f"{folder} holds the data of another request: its {key} is {old.get(key)!r}, not {new.get(key)!r}",
                hint="ask for the same again to resume it, or give another OUTPUT folder",
            )
