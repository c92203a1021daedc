"""The way back: from a unified directory to the layouts that servers and libraries read natively.

Every export proves itself. Before the directory gets its name it is read as anybody's checkpoint would be: it must be
recognised as the format that wrote it, and converting it must give the same config and the same bytes again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.conversion import DTYPES, choose_verifier, dtype_code, provenance
from spec_convert.detection import Detection, recognise
from spec_convert.errors import Refused, UsageError
from spec_convert.findings import Finding, Level, errors
from spec_convert.formats import VERIFIER_EMBEDDING, VERIFIER_HEAD, Export, Format, Native, Request, UnifiedDraft
from spec_convert.mapping import Mapped, apply
from spec_convert.models.load import unified_config
from spec_convert.narration import say
from spec_convert.open import open_checkpoint
from spec_convert.operations import COPY
from spec_convert.plan import Plan, cast_steps, make_plan
from spec_convert.reading_back import Together, require_same
from spec_convert.registry import registry
from spec_convert.rules import found
from spec_convert.shards import shard_size
from spec_convert.source_hashes import SourceHashes
from spec_convert.writer import write


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An export that happened, or with ``written=False`` its dry run. ``format``: the layout that was written."""

    output: Path
    target: str
    format: str
    plan: Plan
    changed: Mapping[str, str]
    seconds: float
    written: bool = True

    @property
    def exact(self) -> bool:
        """Whether converting the export gives the same tensors and the same config again."""
        return not self.changed

    @property
    def findings(self) -> tuple[Finding, ...]:
        return self.plan.findings

    def to_json(self) -> dict[str, Any]:
        """What `export --json` prints."""
        return {
            "output": str(self.output),
            "target": self.target,
            **self.plan.to_json(),
            "format": self.format,
            "exact": self.exact,
            "changed": dict(self.changed),
            "seconds": round(self.seconds, 3),
            "written": self.written,
        }


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One export: the unified source, what was asked for, and the format that does it."""

    source: Detection
    request: Request
    unified: Plan
    fmt: Format
    way: Export


def export(  # noqa: PLR0913  the contract of the command line, flag by flag
    source: str | Path,
    output: str | Path,
    *,
    to: str,
    verifier: str | Path | None = None,
    revision: str | None = None,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> Exported:
    """Write the unified directory ``source`` in the native layout of the target ``to``, as the directory ``output``.

    ``verifier`` may be left out when the directory names one that is at hand. ``dtype`` casts the weights, and above
    ``max_shard_size`` they are written in several files, as by `convert`. Raises UsageError (no such target, or
    ``source`` is not unified), Refused (the target's code does not compute this draft, or what was written does not
    read back) and Unreadable; nothing is left in ``output`` then.
    """
    started = time.monotonic()
    checkpoint, target = open_checkpoint(source, revision=revision), Path(output)
    with SourceHashes(checkpoint, wanted=not dry_run) as hashes:
        say(f"Exporting {source} to {to}")
        job = _job(checkpoint, to, verifier, dtype_code(dtype), shard_size(max_shard_size))
        outgoing = _outgoing(job)
        native = job.way.write(outgoing)
        plan = _plan(job, outgoing, native)
        if not dry_run:
            record = {"target": to, "format": job.fmt.name, "changed": dict(native.changed)}
            write(
                plan,
                target,
                provenance=lambda: provenance(plan, hashes.result()) | {"export": record},
                force=force,
                check=lambda folder: _read_back(folder, job, native),
            )
            say(f"Saved to: {target}")
    return Exported(
        output=target, target=to, format=job.fmt.name, plan=plan, changed=native.changed,
        seconds=time.monotonic() - started, written=not dry_run,
    )  # fmt: skip


def _job(
    checkpoint: Checkpoint, to: str, verifier: str | Path | None, dtype: str | None, max_shard_size: int | None
) -> _Job:
    kind = _unified_type(checkpoint)
    ways = registry().exporters(kind)
    if to not in ways:
        known = ", ".join(sorted(ways))
        hint = f"targets for this type: {known}" if known else "a head of its target goes back by `spec-convert stitch`"
        raise UsageError(f"there is no export of `{kind}` drafts to `{to}`", hint=hint)
    detection = recognise(checkpoint)
    chosen = choose_verifier(detection, verifier)
    request = Request(verifier=chosen, dtype=dtype, max_shard_size=max_shard_size)
    unified = make_plan(detection, replace(request, dtype=None)).require_clean()
    if odd := [name for step in unified.steps if step.via is not COPY for name, _ in step.targets]:
        raise UsageError(f"{checkpoint.source}: {odd[0]} is not stored as unified directories store it", hint=_CONVERT)
    fmt, way = ways[to]
    return _Job(source=detection, request=request, unified=unified, fmt=fmt, way=way)


_CONVERT = "complete it first: `spec-convert convert SOURCE UNIFIED`"


def _unified_type(checkpoint: Checkpoint) -> str:
    if checkpoint.get("speculators_model_type") is None:
        hint = "make it one first: `spec-convert convert SOURCE UNIFIED --verifier BASE`"
        raise UsageError(f"{checkpoint.source} is no unified directory", hint=hint)
    return unified_config(checkpoint).speculators_model_type


def _outgoing(job: _Job) -> UnifiedDraft:
    """The draft as exports see it. Its config is as converting it again would write it."""
    checkpoint, verifier = job.source.checkpoint, job.request.verifier
    assert verifier is not None, "an export always has a verifier"
    config = make_plan(job.source, job.request).require_clean().config or {}
    tensors = {name: checkpoint.tensors[step.sources[0]] for step in job.unified.steps for name, _ in step.targets}
    unified = replace(checkpoint, tensors=tensors, config=config)
    return UnifiedDraft(checkpoint=unified, config=config, verifier=verifier, dtype=DTYPES[config["torch_dtype"]])


def _plan(job: _Job, outgoing: UnifiedDraft, native: Native) -> Plan:
    """What would be written. Raises Refused with every reason when the target cannot have this draft."""
    kept = [finding for finding in job.unified.findings if finding.level is Level.WARNING]
    findings = (*kept, *native.findings)
    if errors(findings):
        raise Refused(findings)
    view = _view(outgoing, native)
    mapped: Mapped = apply(native.table, view.tensors, native.sizes)
    return Plan(
        detection=replace(job.source, checkpoint=view), request=job.request,
        steps=cast_steps(mapped, job.request.dtype), dropped={**mapped.dropped, **job.unified.dropped},
        config=native.config, findings=(*findings, *mapped.findings),
    ).require_clean()  # fmt: skip


def _view(draft: UnifiedDraft, native: Native) -> Checkpoint:
    """The unified tensors, and beside them those of the verifier's that the table takes."""
    mentioned = {template.text for row in native.table for template in row.sources}
    verifier = draft.verifier
    borrowed = {}
    if VERIFIER_EMBEDDING in mentioned:
        borrowed[VERIFIER_EMBEDDING] = verifier.embedding_name
    if VERIFIER_HEAD in mentioned:
        borrowed[VERIFIER_HEAD] = verifier.head_name
    return Together.join(draft.checkpoint, verifier.checkpoint, borrowed) if borrowed else draft.checkpoint


def _read_back(folder: Path, job: _Job, native: Native) -> None:
    """Convert the finished export again. Raises Refused unless that gives what was exported."""
    again = _again(folder, job)
    if again.detection.format != job.fmt.name:
        message = f"is recognised as `{again.detection.format}`, not as `{job.fmt.name}`"
        raise Refused([found("export-not-read-back", where="OUTPUT", message=message)])
    if job.way.of == job.fmt.produces:
        require_same(make_plan(job.source, replace(job.request, **native.flags)), again, except_for=native.changed)


def _again(folder: Path, job: _Job) -> Plan:
    request = replace(job.request, dtype=None, speculative_tokens=_tokens(job.unified))
    try:
        return make_plan(recognise(open_checkpoint(folder)), request).require_clean()
    except Refused as refused:
        why = "; ".join(finding.message for finding in errors(refused.findings))
        message = f"cannot be converted again: {why}"
        raise Refused([found("export-not-read-back", where="OUTPUT", message=message)]) from refused


def _tokens(unified: Plan) -> int:
    """How many tokens the directory proposes: native layouts have no place for it."""
    assert unified.config is not None, "the plan is clean"
    tokens: int = unified.config["speculators_config"]["proposal_methods"][0]["speculative_tokens"]
    return tokens
