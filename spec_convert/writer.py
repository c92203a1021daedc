"""Executing a plan: byte ranges copied into a temporary sibling directory, which is renamed when it is complete.

A run that is killed at any instant leaves either the whole output or none of it. Peak memory does not grow with the
checkpoint: bytes are copied by the kernel, and only tensors that need an operation are read, one step at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_convert.copying import Opened, opened, pieces, write_all
from spec_convert.errors import Refused
from spec_convert.narration import progress
from spec_convert.operations import Header
from spec_convert.plan import Plan
from spec_convert.shards import INDEX, Shard, index_text, shards
from spec_convert.staging import staged
from spec_convert.tensors import check_finite

if TYPE_CHECKING:
    import numpy as np


def write(
    plan: Plan,
    output: Path,
    *,
    provenance: Callable[[], Mapping[str, Any]],
    force: bool = False,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Write the unified directory ``output``: config.json, conversion.json and the weights, in one file or in shards.

    ``provenance`` makes conversion.json; it is asked last. ``check`` looks at the finished directory before it gets
    its name and may raise. Raises Refused when a weight is not finite, Unreadable when the source cannot be read to
    its end, UsageError when ``output`` cannot be written; in every case of failure nothing is left behind.
    """
    plan.require_clean()
    checkpoint, verifier = plan.detection.checkpoint, plan.request.verifier
    untouchable = [checkpoint.files, *([verifier.files] if verifier else [])]
    with staged(output, untouchable=untouchable, force=force) as folder:
        for name in () if plan.detection.inside_target else checkpoint.weight_files:
            checkpoint.files.path(name)  # a remote file is downloaded once, rather than read piece by piece
        if not_finite := list(check_finite(checkpoint.files, plan.used)):
            raise Refused([*plan.findings, *not_finite])
        _write_weights(plan, folder)
        _write_text(folder / "config.json", plan.config_text)
        _write_text(folder / "conversion.json", json.dumps(provenance(), indent=2) + "\n")
        if check is not None:
            check(folder)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def header_bytes(tensors: Mapping[str, Header]) -> bytes:
    """The head of a safetensors file: eight bytes of length, then JSON padded so that the data starts aligned."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, header in tensors.items():
        end = position + header.nbytes
        table[name] = {"dtype": header.dtype, "shape": list(header.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_weights(plan: Plan, folder: Path) -> None:
    files = shards(plan.tensors, plan.request.max_shard_size)
    total = sum(header.nbytes for header in plan.tensors.values())
    checkpoint = plan.detection.checkpoint
    making = _Making(plan)
    with opened(checkpoint.files, downloaded=not plan.detection.inside_target) as source, progress(total) as done:
        for shard in files:
            _write_shard(shard, folder / shard.name, making, source, done)
    if len(files) > 1:
        _write_text(folder / INDEX, index_text(files))


def _write_shard(shard: Shard, path: Path, making: _Making, source: Opened, done: Callable[[int], object]) -> None:
    head = header_bytes(shard.tensors)
    with path.open("wb", buffering=0) as out:
        if hasattr(os, "posix_fallocate"):  # a fifth faster than growing the file, and a full disk is found at once
            os.posix_fallocate(out.fileno(), 0, len(head) + sum(header.nbytes for header in shard.tensors.values()))
        write_all(out.fileno(), head)
        for name, header in shard.tensors.items():
            making.write(name, source, out.fileno())
            done(header.nbytes)


class _Making:
    """The output tensors one by one: copied as they lie, or computed, several at once where one step makes them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._steps = {name: step for step in plan.steps for name, _ in step.targets}
        self._made: dict[str, np.ndarray] = {}

    def write(self, name: str, source: Opened, target: int) -> None:
        step = self._steps[name]
        lying = pieces(step, name, self._plan.detection.checkpoint)
        if lying is not None:
            for piece in lying:
                source.copy(piece, target)
            return
        if name not in self._made:
            self._made |= self._plan.compute(step)
        write_all(target, self._made.pop(name).tobytes())
