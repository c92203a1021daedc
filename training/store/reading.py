"""Reading a store by memory map: no file is scanned, and a sample costs the reading of its own bytes."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_convert.errors import UsageError
from spec_convert.training.store.manifest import LayerFacts, Manifest, Shard, TokenizerFacts, read_manifest
from spec_convert.training.store.sample import Sample

if TYPE_CHECKING:
    from torch import Tensor


class Store:
    """The samples of a finished store, in order; ``store[i]`` reads one."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._starts = list(accumulate((shard.samples for shard in manifest.shards), initial=0))
        self._open: dict[int, Any] = {}  # files, by place of the shard
        self._offsets: dict[int, Tensor] = {}

    @property
    def tokenizer(self) -> TokenizerFacts:
        return self.manifest.tokenizer

    @property
    def layers(self) -> LayerFacts | None:
        """None: prepared samples, which have no states."""
        return self.manifest.layers

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, place: int) -> Sample:
        if not 0 <= place < len(self):
            raise IndexError(place)
        shard = bisect_right(self._starts, place) - 1
        file, within = self._file(shard), place - self._starts[shard]
        start, end = self._offsets[shard][within : within + 2].tolist()
        states = file.get_slice("hidden_states")[start:end] if self.manifest.layers else None
        return Sample(
            index=int(file.get_slice("index")[within : within + 1]),
            input_ids=file.get_slice("input_ids")[start:end].long(),
            loss_mask=file.get_slice("loss_mask")[start:end],
            hidden_states=states,
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[place] for place in range(len(self)))

    def tokens(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The ``input_ids`` and ``loss_mask`` of all samples, without their states, some samples at a time."""
        for shard in range(len(self.manifest.shards)):
            file = self._file(shard)
            yield file.get_tensor("input_ids").long(), file.get_tensor("loss_mask")

    def texts(self) -> Iterator[list[int]]:
        """The token ids of each sample, and nothing else of it: a shard is read at once."""
        for shard, (input_ids, _) in enumerate(self.tokens()):
            bounds = self._offsets[shard].tolist()
            ids = input_ids.tolist()
            yield from (ids[start:end] for start, end in pairwise(bounds))

    @cached_property
    def lengths(self) -> Tensor:
        """[samples] int64: tokens of each."""
        import torch

        lengths = [torch.zeros(0, dtype=torch.int64)]
        for shard in range(len(self.manifest.shards)):
            self._file(shard)
            lengths.append(self._offsets[shard].diff())
        return torch.cat(lengths)

    def verify(self) -> None:
        """Read every byte and compare it with the manifest. Raises UsageError, which names the damaged file."""
        for shard in self.manifest.shards:
            with (self.folder / shard.file).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                    raise _damaged(self.folder, shard)

    def _file(self, shard: int) -> Any:
        from safetensors import SafetensorError, safe_open

        if shard not in self._open:
            entry = self.manifest.shards[shard]
            try:
                self._open[shard] = safe_open(self.folder / entry.file, framework="pt")
                self._offsets[shard] = self._open[shard].get_tensor("offsets")
            except (OSError, SafetensorError) as error:
                raise _damaged(self.folder, entry) from error
        return self._open[shard]


def open_store(folder: Path) -> Store:
    """The store at ``folder``. Raises UsageError when there is none, or when it is not finished."""
    manifest = read_manifest(folder)
    if manifest.layout != "safetensors":
        raise UsageError(f"{folder} holds `data_{{i}}.pt` files, not a store", hint="write it without `--layout pt`")
    require_finished(folder, manifest)
    return Store(folder, manifest)


def require_finished(folder: Path, manifest: Manifest) -> None:
    """Raises UsageError."""
    if not manifest.finished:
        raise UsageError(
            f"{folder} is unfinished: {len(manifest.shards)} of {manifest.planned_shards} shards are there",
            hint="run the command that writes it again; it goes on where it was interrupted",
        )


def _damaged(folder: Path, shard: Shard) -> UsageError:
    return UsageError(f"{folder / shard.file} is not as it was written", hint="remove the folder and write it anew")
