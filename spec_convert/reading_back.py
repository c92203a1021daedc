"""Two plans compared to the last byte, and two checkpoints seen as one: what exports are made and judged with."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from spec_convert.checkpoint import Checkpoint
from spec_convert.copying import blocks, pieces
from spec_convert.errors import Refused
from spec_convert.findings import Finding
from spec_convert.plan import Plan
from spec_convert.rules import found
from spec_convert.tensor import Files

VERIFIER = "verifier/"  # before the names of the verifier's files


@dataclass(frozen=True)
class Together:
    """The files of a draft, and under a prefix those of its verifier."""

    draft: Files
    verifier: Files

    @classmethod
    def join(cls, draft: Checkpoint, verifier: Checkpoint, borrowed: Mapping[str, str]) -> Checkpoint:
        """``draft`` with more tensors: ``borrowed`` gives each its new name and the one that it has in ``verifier``."""
        taken = {
            name: replace(
                verifier.tensors[there], name=f"{VERIFIER}{there}", file=VERIFIER + verifier.tensors[there].file
            )
            for name, there in borrowed.items()
        }
        return replace(draft, files=cls(draft.files, verifier.files), tensors={**draft.tensors, **taken})

    @property
    def label(self) -> str:
        return self.draft.label

    @property
    def revision(self) -> str | None:
        return self.draft.revision

    def sizes(self) -> Mapping[str, int]:
        """Those of the draft alone: of a remote verifier nothing but what is used is ever downloaded."""
        return self.draft.sizes()

    def open(self, name: str) -> BinaryIO:
        files, name = self._where(name)
        return files.open(name)

    def path(self, name: str) -> Path:
        files, name = self._where(name)
        return files.path(name)

    def _where(self, name: str) -> tuple[Files, str]:
        if name.startswith(VERIFIER):
            return self.verifier, name.removeprefix(VERIFIER)
        return self.draft, name


def require_same(before: Plan, after: Plan, *, except_for: Collection[str]) -> None:
    """Raises Refused, with every difference, unless both plans write the same config and the same tensors.

    ``except_for``: tensors that are known to differ.
    """
    if differences := [*_config_differs(before, after), *_tensors_differ(before, after, except_for)]:
        raise Refused(differences)


def _config_differs(before: Plan, after: Plan) -> Iterator[Finding]:
    one, other = _flat(before.config or {}), _flat(after.config or {})
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            message = f"is {one.get(key)!r} in the unified config and {other.get(key)!r} when read back"
            yield found("export-not-read-back", where=f"config.json: {key}", message=message)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        inner = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def _tensors_differ(before: Plan, after: Plan, except_for: Collection[str]) -> Iterator[Finding]:
    one, other = before.tensors, after.tensors
    for name in sorted((one.keys() | other.keys()) - set(except_for)):
        if one.get(name) != other.get(name):
            message = f"is {one.get(name)} in the unified directory and {other.get(name)} when read back"
            yield found("export-not-read-back", where=name, message=message)
        elif _digest(before, name) != _digest(after, name):
            yield found("export-not-read-back", where=name, message="holds other numbers when it is read back")


def _digest(plan: Plan, name: str) -> str:
    """The sha256 of what the plan would write as ``name``."""
    step = next(step for step in plan.steps if name in dict(step.targets))
    checkpoint, digest = plan.detection.checkpoint, hashlib.sha256()
    lying = pieces(step, name, checkpoint)
    if lying is None:
        digest.update(plan.compute(step)[name].tobytes())
    for piece in lying or ():
        for block in blocks(checkpoint.files, piece):
            digest.update(block)
    return digest.hexdigest()
