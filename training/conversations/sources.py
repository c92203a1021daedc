"""What a data set is read from, and by what its content is known again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from spec_convert.errors import UsageError
from spec_convert.evaluation.rows import HubRows, Rows, hub_dataset, open_hub_dataset, read_rows
from spec_convert.training.conversations.presets import PRESETS
from spec_convert.training.conversations.reading import COLUMNS


@dataclass(frozen=True, slots=True)
class Source:
    """``name``: as it was asked for. ``content``: the name of the data and the digest or commit of what it holds."""

    name: str
    content: str
    read: Callable[[], Rows]


def open_source(source: str | Path) -> Source:
    """A file that `read_rows` reads, a dataset on the Hub, which is downloaded, or a preset. Raises UsageError."""
    name = str(source)
    preset = PRESETS.get(name)
    if dataset := preset.dataset if preset else hub_dataset(name):
        hub = _with_columns(open_hub_dataset(dataset, streaming=False), preset.columns if preset else None)
        return Source(name, f"{hub.name} commit:{hub.commit}", hub.numbered)
    path = Path(name)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
    return Source(name, f"{path.name} sha256:{digest}", lambda: read_rows(path))


def _with_columns(hub: HubRows, wanted: tuple[str, ...] | None) -> HubRows:
    """Only the columns that can say something: the others are not decoded."""
    there = hub.rows.column_names
    if missing := [column for column in wanted or () if column not in there]:
        raise UsageError(
            f"{hub.name} has no column {missing[0]}: it has {', '.join(there)}",
            hint="the data set was changed: give its id with the @revision that you mean",
        )
    columns = wanted or [column for column in there if column in COLUMNS]
    return replace(hub, rows=hub.rows.select_columns(list(columns))) if columns else hub
