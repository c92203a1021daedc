"""The rows of a file, or of a dataset on the Hub, and where each stands. What a row means is read elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.evaluation.conversation import MalformedRow

INSTALL = "pip install 'spec-convert[evaluate]'"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?(:[\w.-]+){0,2}", re.ASCII)
Rows = Iterator[tuple[str, Any]]  # where a row stands, and the row


def read_rows(source: str | Path) -> Rows:
    """Every row of ``source`` with the place where it stands, such as `chats.jsonl:7`.

    ``source`` is a file (.jsonl, .json, .txt with a prompt a line, .parquet) or a dataset on the Hub: `org/name`,
    `org/name:split`, `org/name:config:split`, each with `@revision` after the name when wanted. A dataset is streamed:
    a few rows of a large one do not download the rest. A line that is not JSON is the MalformedRow that says so. Raises
    UsageError.
    """
    text = str(source)
    if dataset := hub_dataset(text):
        return open_hub_dataset(dataset, streaming=True).numbered()
    return READERS[Path(text).suffix.lower()](Path(text))


def hub_dataset(source: str) -> str | None:
    """The dataset on the Hub that ``source`` names; None for a file that can be read. Raises UsageError for neither."""
    path = Path(source)
    if path.is_file():
        if path.suffix.lower() in READERS:
            return None
        raise UsageError(
            f"{source} has no ending that says what it holds", hint=f"rename it: one of {', '.join(READERS)}"
        )
    name = source.removeprefix("hf://")
    if not path.exists() and HUB_ID.fullmatch(name) and Path(name).suffix.lower() not in READERS:
        return name
    what = "is no file here and no dataset id of the Hub"
    if path.exists():
        what = "is a folder" if path.is_dir() else "is no regular file"
    raise UsageError(f"{source} {what}", hint=f"give a file ({', '.join(READERS)}) or a dataset id such as org/name")


@dataclass(frozen=True, slots=True)
class HubRows:
    """One split of a dataset on the Hub. ``commit``: the revision that was read."""

    name: str
    commit: str
    rows: Any  # a Dataset of `datasets`, or its IterableDataset

    def numbered(self) -> Rows:
        """Its rows without the columns that are null in them. Raises UsageError."""
        rows: Iterator[dict[str, Any]] = iter(self.rows)
        number = 0
        while True:
            number += 1
            with _explained(self.name):
                row = next(rows, None)
            if row is None:
                return
            yield f"{self.name}: row {number}", _without_nulls(row)


def open_hub_dataset(name: str, *, streaming: bool) -> HubRows:
    """The split that ``name`` says, or the only one: streamed, or downloaded into the cache. Raises UsageError."""
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError(
            "datasets on the Hub are read with `datasets`, which is not installed", hint=INSTALL
        ) from error
    repo, *parts = name.split(":")
    repo_id, _, revision = repo.partition("@")
    split = parts.pop() if parts else None
    with _explained(repo):
        builder = datasets.load_dataset_builder(repo_id, *parts, revision=revision or None)
        if streaming:
            found = builder.as_streaming_dataset()
        else:
            builder.download_and_prepare()
            found = builder.as_dataset()
    if split is None and len(found) > 1:
        wanted = ", ".join(f"{name}:{one}" for one in found)
        raise UsageError(f"{name} has several splits", hint=f"say which: {wanted}")
    if split is not None and split not in found:
        raise UsageError(f"{repo} has no split {split}", hint=f"it has {', '.join(found)}")
    return HubRows(name, str(builder.hash), found[split or next(iter(found))])


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8: {error.reason}", hint="save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Every line that holds something, with its number."""
    with _reading(path), path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"{path}:{number}", line.strip()


def _json_lines(path: Path) -> Rows:
    for where, line in _lines(path):
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            yield where, MalformedRow(f"this line is not JSON: {error}", "not_json", "one JSON object a line")


def _json_array(path: Path) -> Rows:
    with _reading(path):
        text = path.read_text(encoding="utf-8-sig")
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}", hint="call it .jsonl if each line is an object") from error
    if not isinstance(rows, list):
        raise UsageError(
            f"{path} holds no list of prompts", hint="write `[{…}, {…}]`, or one object a line in a .jsonl"
        )
    yield from ((f"{path}: entry {number}", row) for number, row in enumerate(rows, 1))


def _parquet(path: Path) -> Rows:
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]
    except ImportError as error:
        raise UsageError("reading Parquet needs pyarrow, which is not installed", hint=INSTALL) from error
    number = 0
    try:
        for batch in ParquetFile(path).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", _without_nulls(row)
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"{path} is no readable Parquet file: {error}", hint="check that it is complete") from error


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """What the Hub, its client or the library says against a dataset, as one line."""
    from datasets.exceptions import DatasetsError  # type: ignore[import-untyped]
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (DatasetsError, HTTPError, OSError, ValueError, RuntimeError) as error:
        cause = f": {error.__cause__}" if error.__cause__ else ""
        reason = shorten(f"{error}{cause}", width=300, placeholder=" …")
        hint = "check its name, the network and HF_ENDPOINT; a file on this machine always works"
        raise UsageError(f"the dataset {repo} cannot be read: {reason}", hint=hint) from error


READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".jsonl": _json_lines,
    ".json": _json_array,
    ".txt": _lines,
    ".parquet": _parquet,
}
