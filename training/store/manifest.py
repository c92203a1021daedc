"""What a store says of itself: `manifest.json`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from spec_convert.errors import UsageError

NAME = "manifest.json"
Counts = dict[str, int]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenizerFacts(_Part):
    """Whose token ids these are. ``fingerprint``: of the whole vocabulary, so that a copy elsewhere is the same one."""

    name: str
    fingerprint: str
    vocab_size: int


class LayerFacts(_Part):
    """Which states of the verifier are stored, [T, len(ids), hidden_size] for a sample of T tokens.

    Boundary ids: id k is what enters layer k, and id ``num_hidden_layers`` what leaves the last one. That state is
    stored as it is before the verifier's final norm; the files of others may hold it after.
    """

    convention: Literal["boundary"] = "boundary"
    ids: tuple[int, ...]
    num_hidden_layers: int
    hidden_size: int
    dtype: Literal["bfloat16", "float16", "float32"]
    last: Literal["before_norm", "after_norm"] = "before_norm"


class Shard(_Part):
    number: int
    file: str
    samples: int
    tokens: int
    bytes: int
    sha256: str


class Manifest(_Part):
    """``request``: what was asked for, as JSON values. A run goes on with a store only if it asks for the same.

    ``counts``: what became of the rows, by name: samples, tokens, answer_tokens, and what was left out or cut.
    ``made_with``: versions and engine, for people. ``shards``: the finished ones, by number, of ``planned_shards``.
    ``layout``: a shard is one file of safetensors, or a row of `data_{i}.pt`, of which it names the first.
    """

    schema_version: Literal[1] = 1
    kind: Literal["prepared", "hidden_states"]
    layout: Literal["safetensors", "pt"] = "safetensors"
    request: dict[str, Any]
    tokenizer: TokenizerFacts
    layers: LayerFacts | None = None
    made_with: dict[str, str]
    counts: Counts
    planned_shards: int
    shards: tuple[Shard, ...] = ()

    @property
    def finished(self) -> bool:
        return len(self.shards) == self.planned_shards

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)


def read_manifest(folder: Path) -> Manifest:
    """Raises UsageError when the folder holds no store, or one that cannot be understood."""
    path = folder / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as absent:
        what = "has no manifest.json" if folder.is_dir() else "does not exist"
        hint = "give a folder that `spec-convert prepare`, `generate` or `collect` has written"
        raise UsageError(f"{folder} {what}", hint=hint) from absent
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="check its permissions") from error
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        hint = "it is damaged, or another version of spec-convert wrote it: write the folder anew"
        raise UsageError(f"{path} is no manifest of a store: {where}: {first['msg']}", hint=hint) from error


def replace_text(path: Path, text: str) -> None:
    """Give a file a new content at one instant: a reader, or a kill, sees the old one or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
