"""Writing the community's files: a `data_{i}.pt` for each sample, read by `speculators` up to 0.7 and its relatives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spec_convert.training.store.data_config import NAME as DATA_CONFIG
from spec_convert.training.store.data_config import write_data_config
from spec_convert.training.store.manifest import Manifest, Shard, replace_text
from spec_convert.training.store.sample import Sample
from spec_convert.training.store.writing import Layout, StoreWriter, growing

LENGTHS = "sample_lengths.json"  # tokens of each sample, by its number as text


@contextmanager
def writing_pt(folder: Path, draft: Manifest, *, firsts: Sequence[int]) -> Iterator[StoreWriter]:
    """As ``writing``, for shards that are the files `data_{i}.pt`, of which shard n begins with i = ``firsts[n]``.

    ``firsts`` is known before the first shard is: how many samples the shards before each hold. The draft has layers.
    """
    assert draft.layers is not None
    assert len(firsts) == draft.planned_shards

    def save(folder: Path, number: int, samples: Sequence[Sample]) -> dict[str, Path]:
        import torch

        end = firsts[number] + len(samples)
        assert number + 1 == len(firsts) or end == firsts[number + 1], "the shards leave a gap, or overlap"
        partials = {}
        for place, sample in enumerate(samples, firsts[number]):
            partials[f"data_{place}.pt"] = partial = folder / f"data_{place}.pt.partial"
            torch.save(_as_pt(sample), partial)
        _add_lengths(folder, {firsts[number] + place: len(sample) for place, sample in enumerate(samples)})
        return partials

    with growing(folder, draft.model_copy(update={"layout": "pt"}), Layout("data_*.pt", save, files_of)) as writer:
        yield writer
        if writer.manifest.finished and not (folder / DATA_CONFIG).exists():
            write_data_config(folder, writer.manifest)


def files_of(shard: Shard) -> list[str]:
    """The names of its files: from the one that the manifest names, one for each sample."""
    first = int(shard.file.removeprefix("data_").removesuffix(".pt"))
    return [f"data_{place}.pt" for place in range(first, first + shard.samples)]


def _as_pt(sample: Sample) -> dict[str, Any]:
    """Each tensor on its own: a view would bring along all that it is a view of."""
    assert sample.hidden_states is not None
    return {
        "input_ids": sample.input_ids.clone(),
        "hidden_states": [state.clone() for state in sample.hidden_states.unbind(1)],
        "loss_mask": sample.loss_mask.long(),
        "index": sample.index,
    }


def _add_lengths(folder: Path, lengths: dict[int, int]) -> None:
    """What a kill leaves here of an unfinished shard is put right when that shard is written."""
    path = folder / LENGTHS
    there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    merged = {**there, **{str(place): length for place, length in lengths.items()}}
    replace_text(path, json.dumps(merged) + "\n")
