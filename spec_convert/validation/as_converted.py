"""A unified directory against the conversion.json beside it: the names, dtypes and shapes of what was written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.containers.refusal import few
from spec_convert.containers.strict_json import parse_object
from spec_convert.errors import Unreadable
from spec_convert.findings import Finding
from spec_convert.rules import found

NAME = "conversion.json"
SCHEMA_VERSION = 1  # of the files that are known here; of others nothing can be said
LARGEST = 4_000_000  # bytes: twenty thousand tensors
LETTERS = 100

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]  # name to dtype and shape


def findings_of_changes(checkpoint: Checkpoint) -> list[Finding]:
    """What tells the tensors of ``checkpoint`` from those that its conversion wrote; nothing where there was none."""
    size = checkpoint.files.sizes().get(NAME)
    if size is None:
        return []
    if size > LARGEST:
        return [_finding(f"has {size} bytes: a conversion writes no more than {LARGEST}")]
    with checkpoint.files.open(NAME) as stream:
        raw = stream.read(LARGEST)
    try:
        told = parse_object(raw, where=NAME, rule="not-as-converted")
    except Unreadable as problem:
        return list(problem.findings)
    if told.get("schema_version") != SCHEMA_VERSION:
        return []
    written = _written(told)
    if written is None:
        return [_finding("does not list the tensors that were written")]
    held = {tensor.name: (tensor.dtype, tensor.shape) for tensor in checkpoint.tensors.values()}
    return [_finding(message) for message in _differences(written, held)]


def _written(told: Mapping[str, Any]) -> Tensors | None:
    """The tensors that it lists, or None when they are not listed as a conversion lists them."""
    tensors = told.get("tensors")
    moved = tensors.get("moved") if isinstance(tensors, dict) else None
    if not isinstance(moved, list):
        return None
    written = {}
    for entry in moved:
        match entry:
            case {"target": str(name), "dtype": str(dtype), "shape": list(shape)}:
                written[name] = (dtype, tuple(shape))
            case _:
                return None
    return written


def _differences(written: Tensors, held: Tensors) -> list[str]:
    """In words, one for each kind of difference."""
    missing, added = _short(written.keys() - held.keys()), _short(held.keys() - written.keys())
    others = sorted(name for name in written.keys() & held.keys() if written[name] != held[name])
    changed = [f"{name} is {_shown(held[name])} and was {_shown(written[name])}" for name in others]
    words = {"the file lacks ": missing, "the file also holds ": added, "": changed}
    return [f"{said}{few(names)}" for said, names in words.items() if names]


def _short(names: set[str]) -> list[str]:
    """These come from a file that anybody may have written."""
    return [name[:LETTERS] for name in names]


def _shown(tensor: tuple[str, tuple[int, ...]]) -> str:
    dtype, shape = tensor
    return f"{dtype} {list(shape)}"[:LETTERS]


def _finding(message: str) -> Finding:
    return found("not-as-converted", where=NAME, message=message)
