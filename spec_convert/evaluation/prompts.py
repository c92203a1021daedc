"""The questions of an evaluation: a file of conversations, MT-bench turns or plain lines, or a dataset on the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.evaluation.conversation import MalformedPrompt, as_prompt
from spec_convert.evaluation.prompt import Prompt

INSTALL = "pip install 'spec-convert[evaluate]'"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?(:[\w.-]+){0,2}", re.ASCII)
Rows = Iterator[tuple[str, Any]]  # where a row stands, and the row


def read_prompts(source: str | Path, *, limit: int | None = None) -> list[Prompt]:
    """The first ``limit`` prompts of ``source``, or all.

    ``source`` is a file (.jsonl, .json, .txt with a prompt a line, .parquet) or a dataset on the Hub: `org/name`,
    `org/name:split`, `org/name:config:split`, each with `@revision` after the name when wanted. Answers in it are left
    out: they are to be written. Raises UsageError, which names the row that is no prompt.
    """
    text = str(source)
    rows = _rows(text)
    prompts = []
    for where, row in rows if limit is None else islice(rows, limit):
        try:
            prompts.append(as_prompt(row))
        except MalformedPrompt as wrong:
            raise UsageError(f"{where}: {wrong}", hint=wrong.hint) from wrong
    if not prompts:
        raise UsageError(f"{text} holds no prompt", hint="give a file with at least one prompt")
    return prompts


def _rows(source: str) -> Rows:
    path = Path(source)
    if path.is_file():
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise UsageError(
                f"{source} has no ending that says what it holds", hint=f"rename it: one of {', '.join(READERS)}"
            )
        return reader(path)
    name = source.removeprefix("hf://")
    if not path.exists() and HUB_ID.fullmatch(name) and Path(name).suffix.lower() not in READERS:
        return _hub_dataset(name)
    what = "is a folder" if path.exists() else "is no file here and no dataset id of the Hub"
    raise UsageError(f"{source} {what}", hint=f"give a file ({', '.join(READERS)}) or a dataset id such as org/name")


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
            raise UsageError(f"{where}: this line is not JSON: {error}", hint="one JSON object a line") from error


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
                yield f"{path}: row {number}", {name: value for name, value in row.items() if value is not None}
    except (pyarrow.ArrowException, OSError) as error:
        raise UsageError(f"{path} is no readable Parquet file: {error}", hint="check that it is complete") from error


def _hub_dataset(name: str) -> Rows:
    """The rows of a dataset, streamed: a few prompts of a large one do not download the rest."""
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
        found = datasets.load_dataset(repo_id, *parts, revision=revision or None, streaming=True)
    if split is None and len(found) > 1:
        wanted = ", ".join(f"{name}:{one}" for one in found)
        raise UsageError(f"{name} has several splits", hint=f"say which: {wanted}")
    if split is not None and split not in found:
        raise UsageError(f"{repo} has no split {split}", hint=f"it has {', '.join(found)}")
    rows = iter(found[split or next(iter(found))])
    number = 0
    while True:
        number += 1
        with _explained(repo):
            row = next(rows, None)
        if row is None:
            return
        yield f"{name}: row {number}", {key: value for key, value in row.items() if value is not None}


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """What the Hub, its client or the library says against a dataset, as one line."""
    from datasets.exceptions import DatasetsError  # type: ignore[import-untyped]
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (DatasetsError, HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = shorten(str(error), width=300, placeholder=" …")
        hint = "check its name, the network and HF_ENDPOINT; a file of prompts always works"
        raise UsageError(f"the dataset {repo} cannot be read: {reason}", hint=hint) from error


READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".jsonl": _json_lines,
    ".json": _json_array,
    ".txt": _lines,
    ".parquet": _parquet,
}
