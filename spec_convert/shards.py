"""Weights in several files, when one would be too large: how the Hub's libraries name and list them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from spec_convert.errors import UsageError
from spec_convert.operations import Header

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
MAX_SHARD_SIZE = 50 * 10**9  # what transformers 5 saves models with
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(rf"(?P<number>\d{{1,6}}(\.\d{{1,6}})?)(?P<unit>{'|'.join(_UNITS)})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One weight file: its name, and its tensors in file order."""

    name: str
    tensors: Mapping[str, Header]


def shard_size(text: int | str | None) -> int | None:
    """A limit in bytes, of a number or of words such as `5GB`. Raises UsageError for anything else."""
    if text is None:
        return None
    match = None if isinstance(text, int) else _SIZE.fullmatch(text)
    size = int(float(match["number"]) * _UNITS[match["unit"].upper()]) if match else text
    if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
        raise UsageError(f"{text!r} is no size of a file", hint=f"a number and one of {', '.join(_UNITS)}, as in 5GB")
    return size


def shards(tensors: Mapping[str, Header], limit: int | None) -> list[Shard]:
    """The files that hold these tensors, each full in turn; a tensor above the limit has a file of its own."""
    most = MAX_SHARD_SIZE if limit is None else limit
    groups: list[dict[str, Header]] = [{}]
    filled = 0
    for name, header in tensors.items():
        if groups[-1] and filled + header.nbytes > most:
            groups.append({})
            filled = 0
        groups[-1][name] = header
        filled += header.nbytes
    if len(groups) == 1:
        return [Shard(name=WEIGHTS, tensors=groups[0])]
    return [
        Shard(name=f"model-{number:05}-of-{len(groups):05}.safetensors", tensors=group)
        for number, group in enumerate(groups, 1)
    ]


def index_text(files: list[Shard]) -> str:
    """The index of several shards: where each tensor is, and how many bytes they have together."""
    total = sum(header.nbytes for shard in files for header in shard.tensors.values())
    places = {name: shard.name for shard in files for name in shard.tensors}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    return json.dumps(index, indent=2) + "\n"
