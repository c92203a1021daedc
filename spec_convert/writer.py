"""Executing a plan: byte ranges copied into a temporary sibling directory, which is renamed when it is complete.

A run that is killed at any instant leaves either the whole output or none of it. Peak memory does not grow with the
checkpoint: bytes are copied by the kernel, and only tensors that need an operation are read, one step at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spec_convert.bytes import read_tensor
from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Refused
from spec_convert.findings import Finding
from spec_convert.mapping import Step
from spec_convert.operations import COPY, Header
from spec_convert.plan import Plan
from spec_convert.staging import staged
from spec_convert.tensors import CHUNK, check_finite

WEIGHTS = "model.safetensors"
Provenance = Callable[[Mapping[str, str]], Mapping[str, Any]]


def write(
    plan: Plan,
    output: Path,
    *,
    provenance: Provenance,
    force: bool = False,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Write the unified directory ``output``: config.json, model.safetensors and conversion.json.

    ``provenance`` makes conversion.json of the sha256 of every source file. ``check`` looks at the finished directory
    before it gets its name and may raise. Raises Refused when a weight is not finite, UsageError when ``output``
    cannot be written; in every case of failure nothing is left behind.
    """
    plan.require_clean()
    checkpoint = plan.detection.checkpoint
    with staged(output, source=plan.detection.checkpoint.files, force=force) as folder:
        with ThreadPoolExecutor(max_workers=2) as beside:  # hashing and looking keep a second core busy
            hashes = beside.submit(_hashes, checkpoint)
            broken = beside.submit(lambda: list(check_finite(checkpoint.files, _moved(plan))))
            _write_weights(plan, folder / WEIGHTS, broken)
        if not_finite := broken.result():
            raise Refused([*plan.findings, *not_finite])
        _write_text(folder / "config.json", plan.config_text)
        _write_text(folder / "conversion.json", json.dumps(provenance(hashes.result()), indent=2) + "\n")
        if check is not None:
            check(folder)


def _moved(plan: Plan) -> list[Any]:
    names = sorted({source for step in plan.steps for source in step.sources})
    return [plan.detection.checkpoint.tensors[name] for name in names]


def _hashes(checkpoint: Checkpoint) -> dict[str, str]:
    names = {*checkpoint.weight_files, *(name for name in checkpoint.files.sizes() if name == "config.json")}
    return {name: sha256(checkpoint.files.path(name)) for name in sorted(names)}


def sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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


def _write_weights(plan: Plan, path: Path, stop: Future[list[Finding]]) -> None:
    """One safetensors file; gives up early when the look at the weights has already found something."""
    making = {name: step for step in plan.steps for name, _ in step.targets}
    made: dict[str, bytes] = {}
    with path.open("wb", buffering=0) as out, _open_sources(plan.detection.checkpoint) as descriptor:
        _write_all(out.fileno(), header_bytes(plan.tensors))
        for name in plan.tensors:
            step = making[name]
            if stop.done() and stop.result():
                return
            tensor = plan.detection.checkpoint.tensors[step.sources[0]]
            if step.via is COPY and tensor.strides is None:
                _copy_range(descriptor(tensor.file), out.fileno(), tensor.start, tensor.nbytes)
                continue
            if name not in made:
                made |= _make(plan.detection.checkpoint, step)
            _write_all(out.fileno(), made.pop(name))


def _make(checkpoint: Checkpoint, step: Step) -> dict[str, bytes]:
    arrays = [read_tensor(checkpoint.files, checkpoint.tensors[source]) for source in step.sources]
    results = step.via.run(arrays, [header for _, header in step.targets])
    return {name: array.tobytes() for (name, _), array in zip(step.targets, results, strict=True)}


@contextmanager
def _open_sources(checkpoint: Checkpoint) -> Iterator[Callable[[str], int]]:
    opened: dict[str, int] = {}

    def descriptor(name: str) -> int:
        if name not in opened:
            opened[name] = os.open(checkpoint.files.path(name), os.O_RDONLY)
        return opened[name]

    try:
        yield descriptor
    finally:
        for number in opened.values():
            os.close(number)


def _copy_range(source: int, target: int, start: int, size: int) -> None:
    """``size`` bytes from ``start``, copied inside the kernel where the file systems allow it."""
    copied = 0
    while copied < size:
        try:
            count = os.copy_file_range(source, target, min(size - copied, 1 << 30), offset_src=start + copied)
        except (AttributeError, OSError):  # not on this platform, or not between these two file systems
            return _copy_through_memory(source, target, start + copied, size - copied)
        if count == 0:
            raise EOFError("the source file ended while it was copied")
        copied += count
    return None


def _copy_through_memory(source: int, target: int, start: int, size: int) -> None:
    while size:
        block = os.pread(source, min(size, CHUNK), start)
        if not block:
            raise EOFError("the source file ended while it was copied")
        _write_all(target, block)
        start, size = start + len(block), size - len(block)


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
