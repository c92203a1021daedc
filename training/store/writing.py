"""Growing a store shard by shard, so that a kill at any instant loses at most the shard at work."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spec_convert.errors import UsageError
from spec_convert.training.same_request import require_same
from spec_convert.training.store.manifest import NAME, Counts, Manifest, Shard, read_manifest, replace_text
from spec_convert.training.store.sample import Sample


@dataclass(frozen=True)
class Layout:
    """How the samples of a shard lie in files.

    ``pattern``: matches the names of all of them. ``save`` writes those of shard ``number``, complete, under names of
    its own that end in `.partial`, and returns these by the final names, in order. ``files_of``: the final names.
    """

    pattern: str
    save: Callable[[Path, int, Sequence[Sample]], dict[str, Path]]
    files_of: Callable[[Shard], Sequence[str]]


class StoreWriter:
    """The folder is this process's alone; a shard counts from the instant in which the manifest names it."""

    def __init__(self, folder: Path, manifest: Manifest, layout: Layout) -> None:
        self.folder, self.manifest, self._layout = folder, manifest, layout

    @property
    def done(self) -> frozenset[int]:
        """The numbers of the finished shards."""
        return frozenset(shard.number for shard in self.manifest.shards)

    def write(self, number: int, samples: Sequence[Sample]) -> Shard:
        """Shard ``number`` of those planned. Raises UsageError when the disk does not take it."""
        from safetensors import SafetensorError

        try:
            return self._write(number, samples)
        except (OSError, SafetensorError) as reason:
            raise UsageError(
                f"cannot write shard {number} into {self.folder}: {reason}",
                hint="make room, and run the same command again: it goes on where it stopped",
            ) from reason

    def _write(self, number: int, samples: Sequence[Sample]) -> Shard:
        partials = self._layout.save(self.folder, number, samples)
        shard = Shard(
            number=number, file=next(iter(partials)), samples=len(samples), tokens=sum(map(len, samples)),
            bytes=sum(partial.stat().st_size for partial in partials.values()), sha256=digest_of(partials.values()),
        )  # fmt: skip
        mode = (self.folder / NAME).stat().st_mode & 0o777  # safetensors leaves files to their owner alone
        for name, partial in partials.items():
            partial.chmod(mode)
            _sync(partial)
            partial.rename(self.folder / name)
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
    layout = Layout("shard-*.safetensors", _save, lambda shard: [shard.file])
    with growing(folder, draft, layout) as writer:
        yield writer


@contextmanager
def growing(folder: Path, draft: Manifest, layout: Layout) -> Iterator[StoreWriter]:
    """As ``writing``, for shards of any layout."""
    with _begun(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = _lock(folder)
    try:
        with _begun(folder):
            manifest = _resumed(folder, draft, layout)
        yield StoreWriter(folder, manifest, layout)
    finally:
        os.close(lock)


@contextmanager
def _begun(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as reason:
        raise UsageError(f"cannot write {folder}: {reason.strerror}", hint="give another OUTPUT folder") from reason


def digest_of(paths: Iterable[Path]) -> str:
    """The SHA-256 of these files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _save(folder: Path, number: int, samples: Sequence[Sample]) -> dict[str, Path]:
    import torch
    from safetensors.torch import save_file

    tensors = {
        "index": torch.tensor([sample.index for sample in samples]),
        "offsets": torch.tensor([0, *map(len, samples)]).cumsum(0),
        "input_ids": torch.cat([sample.input_ids for sample in samples]).int(),
        "loss_mask": torch.cat([sample.loss_mask for sample in samples]),
    }
    states = [sample.hidden_states for sample in samples if sample.hidden_states is not None]
    if states:
        tensors["hidden_states"] = torch.cat(states)
    partial = folder / f"shard-{number:05}.partial"
    save_file(tensors, partial)
    return {f"shard-{number:05}.safetensors": partial}


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _lock(folder: Path) -> int:
    """Ends with this process, however it ends."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise UsageError(f"another process is writing {folder}", hint="wait for it, or give another OUTPUT") from None
    return lock


def _resumed(folder: Path, draft: Manifest, layout: Layout) -> Manifest:
    """What is there already, without what a kill left half done."""
    if not (folder / NAME).exists():
        if foreign := sorted(name for name in os.listdir(folder) if not name.endswith(".partial")):
            raise UsageError(f"{folder} is not empty: it holds {foreign[0]}", hint="give an OUTPUT folder of its own")
        replace_text(folder / NAME, draft.model_dump_json(indent=2) + "\n")
        return draft
    there = read_manifest(folder)
    if there.shards or there.layout != draft.layout:
        _require_same(folder, there, draft)
    else:  # nothing would be lost by asking for something else
        replace_text(folder / NAME, draft.model_dump_json(indent=2) + "\n")
        there = draft
    finished = {shard.number: [folder / name for name in layout.files_of(shard)] for shard in there.shards}
    keep = {path for paths in finished.values() for path in paths}
    # safetensors writes into a `.tmp…` beside the file first.
    for path in (*folder.glob(layout.pattern), *folder.glob("*.partial"), *folder.glob(".tmp*")):
        if path not in keep:
            path.unlink()
    for shard in there.shards:
        paths = finished[shard.number]
        if not all(path.is_file() for path in paths) or sum(path.stat().st_size for path in paths) != shard.bytes:
            where = paths[0] if len(paths) == 1 else f"{paths[0]} to {paths[-1].name}"
            raise UsageError(f"{where} is not as it was written", hint="remove the folder and run the command again")
    return there


def _require_same(folder: Path, there: Manifest, draft: Manifest) -> None:
    """Goes on only with what was asked for before."""
    old = {"kind": there.kind, "layout": there.layout, "planned_shards": there.planned_shards, **there.request}
    new = {"kind": draft.kind, "layout": draft.layout, "planned_shards": draft.planned_shards, **draft.request}
    require_same(folder, "data", old, new, last="planned_shards")  # which follows from the others
