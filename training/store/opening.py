"""Opening training data by what lies there: a store, or the community's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spec_convert.training.store.community_reading import Last, PtFolder, open_pt, require_same_layers
from spec_convert.training.store.manifest import NAME, read_manifest
from spec_convert.training.store.reading import Store, open_store


def open_data(folder: Path, *, layer_ids: Sequence[int] | None = None, last: Last | None = None) -> Store | PtFolder:
    """The samples at ``folder``. ``layer_ids`` and ``last``: as for ``open_pt``; a store says them itself.

    Raises UsageError when nothing of the two kinds is there, or it is unfinished or damaged.
    """
    has_manifest = (folder / NAME).exists()
    if has_manifest and read_manifest(folder).layout == "safetensors":
        store = open_store(folder)
        require_same_layers(folder, store.layers, layer_ids, last)
        return store
    if has_manifest or any(folder.glob("data_*.pt")):
        return open_pt(folder, layer_ids=layer_ids, last=last)
    return open_store(folder)  # which says what is missing
