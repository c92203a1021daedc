"""Executing a plan: byte ranges copied into a temporary sibling directory, which is renamed when it is complete.

A run that is killed at any instant leaves either the whole output or none of it. Peak memory does not grow with the
checkpoint: bytes are copied by the kernel, and only tensors that need an operation are read, one step at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.containers.refusal import damaged
from spec_convert.errors import Refused
from spec_convert.narration import progress
from spec_convert.operations import COPY, Header
from spec_convert.plan import Plan
from spec_convert.staging import staged
from spec_convert.tensor import Tensor
from spec_convert.tensors import CHUNK, check_finite

if TYPE_CHECKING:
    import numpy as np

WEIGHTS = "model.safetensors"


def write(
    plan: Plan,
    output: Path,
    *,
    provenance: Callable[[], Mapping[str, Any]],
    force: bool = False,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Write the unified directory ``output``: config.json, model.safetensors and conversion.json.

    ``provenance`` makes conversion.json; it is asked last. ``check`` looks at the finished directory before it gets
    its name and may raise. Raises Refused when a weight is not finite, Unreadable when the source cannot be read to
    its end, UsageError when ``output`` cannot be written; in every case of failure nothing is left behind.
    """
    plan.require_clean()
    checkpoint, verifier = plan.detection.checkpoint, plan.request.verifier
    untouchable = [checkpoint.files, *([verifier.files] if verifier else [])]
    with staged(output, untouchable=untouchable, force=force) as folder:
        for name in checkpoint.weight_files:
            checkpoint.files.path(name)  # a remote file is downloaded once, rather than read piece by piece
        if not_finite := list(check_finite(checkpoint.files, plan.used)):
            raise Refused([*plan.findings, *not_finite])
        _write_weights(plan, folder / WEIGHTS)
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


def _write_weights(plan: Plan, path: Path) -> None:
    checkpoint, headers = plan.detection.checkpoint, plan.tensors
    making = {name: step for step in plan.steps for name, _ in step.targets}
    made: dict[str, np.ndarray] = {}
    total = sum(header.nbytes for header in headers.values())
    with path.open("wb", buffering=0) as out, _open_sources(checkpoint) as source, progress(total) as done:
        head = header_bytes(headers)
        if hasattr(os, "posix_fallocate"):  # a fifth faster than growing the file, and a full disk is found at once
            os.posix_fallocate(out.fileno(), 0, len(head) + total)
        _write_all(out.fileno(), head)
        for name, header in headers.items():
            step = making[name]
            tensor = checkpoint.tensors[step.sources[0]]
            if step.via is COPY and tensor.strides is None:
                _copy_range(source(tensor.file), out.fileno(), tensor)
            else:
                if name not in made:
                    made |= plan.compute(step)
                _write_all(out.fileno(), made.pop(name).tobytes())
            done(header.nbytes)


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


def _copy_range(source: int, target: int, tensor: Tensor) -> None:
    """The bytes of ``tensor``, copied inside the kernel where the file systems allow it."""
    start, end = tensor.start, tensor.start + tensor.nbytes
    by_kernel = hasattr(os, "copy_file_range")
    while start < end:
        if by_kernel:
            try:
                count = os.copy_file_range(source, target, end - start, offset_src=start)
            except OSError:  # not between these two file systems; whatever else is wrong, the write below says it
                by_kernel = False
                continue
        else:
            block = os.pread(source, min(end - start, CHUNK), start)
            _write_all(target, block)
            count = len(block)
        if count == 0 and by_kernel:  # some file systems copy nothing and call it done
            by_kernel = False
        elif count == 0:
            raise damaged(tensor.file, f"ends inside {tensor.name}")
        start += count


def _write_all(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
