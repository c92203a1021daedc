"""An MTP head back into its target: the target's files, of which the bytes of the head's tensors are the draft's.

Name, shape and dtype stay, so each tensor is written where the old one lies. Headers, index and every other byte remain
as they are: files without such a tensor are hard links where the disk allows it, the others are copied in the kernel.
What was written is extracted again, and must be the draft that was stitched.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.conversion import choose_verifier, provenance
from spec_convert.copying import Opened, Piece, opened, pieces
from spec_convert.detection import recognise
from spec_convert.errors import Refused, UsageError
from spec_convert.findings import Finding
from spec_convert.formats import Request
from spec_convert.mapping import Mapped, Step, apply
from spec_convert.models.load import unified_config
from spec_convert.narration import progress, say
from spec_convert.open import open_checkpoint
from spec_convert.operations import COPY, Header
from spec_convert.plan import Plan, make_plan
from spec_convert.reading_back import require_same
from spec_convert.rules import found
from spec_convert.source_hashes import SourceHashes
from spec_convert.staging import staged
from spec_convert.tensors import check_finite
from spec_convert.verifier import Verifier

WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf")
RECORD = "conversion.json"


@dataclass(frozen=True, kw_only=True)
class Stitched:
    """A stitching that happened, or with ``written=False`` its dry run. ``replaced``: the target's names."""

    output: Path
    target: str
    replaced: tuple[str, ...]
    tokens: int
    findings: tuple[Finding, ...]
    seconds: float
    written: bool = True

    def to_json(self) -> dict[str, Any]:
        """What `stitch --json` prints."""
        return {
            "output": str(self.output),
            "target": self.target,
            "replaced": list(self.replaced),
            "findings": [finding.to_json() for finding in self.findings],
            "seconds": round(self.seconds, 3),
            "written": self.written,
        }


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The draft, the head that the target has, and which tensors of the draft become which of the target's."""

    verifier: Verifier
    draft: Plan
    head: Plan
    mapped: Mapped

    @property
    def target(self) -> Checkpoint:
        return self.head.detection.checkpoint

    @property
    def touched(self) -> frozenset[str]:
        """The files of the target that hold a tensor of the head."""
        return frozenset(tensor.file for tensor in self.head.used)


def stitch(  # noqa: PLR0913  the contract of the command line, flag by flag
    source: str | Path,
    output: str | Path,
    *,
    verifier: str | Path | None = None,
    revision: str | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> Stitched:
    """Write ``output``: the target of the unified draft ``source``, with this draft in the place of its own head.

    ``verifier`` is that target; it may be left out when the directory names one that is at hand. Raises UsageError (no
    unified draft of a kind that targets hold, a target that cannot be written), Refused (the two do not fit) and
    Unreadable; nothing is left in ``output`` then.
    """
    started = time.monotonic()
    checkpoint, place = open_checkpoint(source, revision=revision), Path(output)
    with SourceHashes(checkpoint, wanted=not dry_run) as hashes:
        say(f"Stitching {source}")
        job = _job(checkpoint, verifier)
        if not dry_run:
            files = job.target.files
            with staged(place, untouchable=[checkpoint.files, files], force=force) as folder:
                _write(job, folder)
                put = replace(job.draft, steps=job.mapped.steps, dropped={})
                record = provenance(put, hashes.result()) | {"stitched_into": files.label}
                (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
                _read_back(folder, job)
            say(f"Saved to: {place}")
    return Stitched(
        output=place, target=job.verifier.name, replaced=tuple(sorted(job.mapped.targets)),
        tokens=_tokens(job.draft), findings=job.draft.findings, seconds=time.monotonic() - started,
        written=not dry_run,
    )  # fmt: skip


def _job(checkpoint: Checkpoint, given: str | Path | None) -> _Job:
    detection = recognise(checkpoint)
    if not detection.winner.is_unified(checkpoint):
        hint = "make it one first: `spec-convert convert TARGET UNIFIED`"
        raise UsageError(f"{checkpoint.source} is no unified directory", hint=hint)
    verifier, kind = choose_verifier(detection, given), unified_config(checkpoint).speculators_model_type
    head = _head(verifier, kind)
    draft = make_plan(detection, Request(verifier=verifier)).require_clean()
    if odd := [name for step in draft.steps for name, _ in step.targets if step.via is not COPY]:
        hint = "complete it first: `spec-convert convert SOURCE UNIFIED`"
        raise UsageError(f"{checkpoint.source}: {odd[0]} is not stored as unified directories store it", hint=hint)
    layout = head.detection.winner.layout(head.detection.checkpoint, head.request)
    tensors = {name: checkpoint.tensors[step.sources[0]] for step in draft.steps for name, _ in step.targets}
    job = _Job(verifier=verifier, draft=draft, head=head, mapped=apply(layout.table.inverse, tensors, head.sizes))
    if differences := [*_configs_differ(job), *_places_differ(job)]:
        raise Refused(differences)
    return job


def _head(verifier: Verifier, kind: str) -> Plan:
    """What extracting the target's own head would do."""
    target = recognise(verifier.checkpoint)
    if not target.inside_target or target.winner.produces != kind:
        message = f"{verifier.name} holds no head that a draft of type `{kind}` could replace"
        raise UsageError(message, hint="name the model that the head was extracted from: --verifier TARGET")
    if target.checkpoint.container != "safetensors":
        message = (
            f"{verifier.name} is stored as {target.checkpoint.container}, whose tensors cannot be replaced in place"
        )
        raise UsageError(message, hint="save it as safetensors first")
    return make_plan(target, Request(verifier=verifier)).require_clean()


def _configs_differ(job: _Job) -> Iterator[Finding]:
    key = "transformer_layer_config"
    ours, theirs = ((plan.config or {})[key] for plan in (job.draft, job.head))
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            message = f"is {ours.get(name)!r} in the draft and {theirs.get(name)!r} in the target"
            yield found("stitch-mismatch", where=f"config.json: {key}.{name}", message=message)


def _places_differ(job: _Job) -> Iterator[Finding]:
    """Whether each tensor of the target's head is replaced, by one of its shape and dtype."""
    yield from job.mapped.findings
    ours = job.mapped.targets
    theirs = {tensor.name: Header(tensor.dtype, tensor.shape) for tensor in job.head.used}
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            one, other = (_shown(side.get(name)) for side in (ours, theirs))
            yield found("stitch-mismatch", where=name, message=f"is {one} in the draft and {other} in the target")


def _shown(header: Header | None) -> str:
    return f"{header.dtype} {list(header.shape)}" if header else "absent"


def _write(job: _Job, folder: Path) -> None:
    checkpoint = job.draft.detection.checkpoint
    if not_finite := list(check_finite(checkpoint.files, job.draft.used)):
        raise Refused(not_finite)
    files, sizes = job.target.files, job.target.files.sizes()
    names = [name for name in sizes if name != RECORD]
    with opened(files) as theirs, opened(checkpoint.files) as ours, progress(sum(sizes.values())) as done:
        for name in names:
            if name in job.touched or not name.endswith(WEIGHTS) or not _linked(files.path(name), folder / name):
                _copy(theirs, Piece(name, 0, sizes[name], name), folder / name)
            done(sizes[name])
        for step in job.mapped.steps:
            for name, _ in step.targets:
                _replace(job, step, name, ours, folder)


def _linked(path: Path, place: Path) -> bool:
    """Whether ``place`` has become another name of the file. Files on another disk must be copied."""
    try:
        os.link(path.resolve(), place)
    except OSError:
        return False
    return True


def _copy(files: Opened, piece: Piece, place: Path) -> None:
    with place.open("wb", buffering=0) as out:
        files.copy(piece, out.fileno())


def _replace(job: _Job, step: Step, name: str, ours: Opened, folder: Path) -> None:
    there = job.target.tensors[name]
    lying = pieces(step, name, job.draft.detection.checkpoint)
    assert lying is not None, "the inverse of what only cuts only cuts"
    with (folder / there.file).open("r+b", buffering=0) as out:
        out.seek(there.start)
        for piece in lying:
            ours.copy(piece, out.fileno())


def _read_back(folder: Path, job: _Job) -> None:
    """Extract the head again. Raises Refused unless it is the draft, to the last byte."""
    request = replace(job.head.request, speculative_tokens=_tokens(job.draft))
    require_same(job.draft, make_plan(recognise(open_checkpoint(folder)), request), except_for=())


def _tokens(draft: Plan) -> int:
    assert draft.config is not None, "the plan is clean"
    tokens: int = draft.config["speculators_config"]["proposal_methods"][0]["speculative_tokens"]
    return tokens
