"""Is a checkpoint right: everything that can be found wrong, at a level that costs as much as the user wants to pay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from spec_convert.detection import Detection, recognise
from spec_convert.errors import Refused, Unreadable, UsageError
from spec_convert.findings import Checked, Finding, Level, Report, errors
from spec_convert.formats import Request
from spec_convert.open import open_checkpoint
from spec_convert.plan import make_plan
from spec_convert.tensors import check_finite
from spec_convert.verifier import Verifier, open_verifier


class Depth(StrEnum):
    """How deep validation looks. Each level includes the ones before it."""

    HEADERS = "headers"  # config, names, shapes, dtypes; vocabulary maps by value. Nothing of a Hub id is downloaded
    TENSORS = "tensors"  # every number: NaN and infinities. Streamed, memory stays flat
    FORWARD = "forward"  # the reference draft runs on random input: finite and deterministic


def validate(
    source: str | Path | Sequence[str | Path], *, verifier: str | Path | None = None, level: str = "headers"
) -> Report:
    """Look for everything wrong with one or more checkpoints: unified directories or any known native format.

    A native checkpoint is judged by what converting it would find. With ``verifier`` the two must also fit together.
    Problems of a checkpoint are findings in the report, never exceptions; an unreadable ``verifier`` raises Unreadable.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    if level not in list(Depth):
        raise UsageError(f"there is no level `{level}`", hint=f"one of {', '.join(Depth)}")
    depth = Depth(level)
    against = open_verifier(verifier) if verifier is not None else None
    return Report(checked=tuple(_validate_one(str(one), against, depth) for one in sources))


def _validate_one(source: str, verifier: Verifier | None, depth: Depth) -> Checked:
    name: str | None = None
    try:
        detection = recognise(open_checkpoint(source))
        name = detection.format
        found = _look(detection, verifier, depth)
    except (Unreadable, Refused) as problem:
        found = list(problem.findings)
    return Checked(source=source, format=name, findings=tuple(found))


def _look(detection: Detection, verifier: Verifier | None, depth: Depth) -> list[Finding]:
    plan = make_plan(detection, Request(verifier=verifier))
    findings = [_without_verifier(finding, verifier) for finding in plan.findings]
    if depth is not Depth.HEADERS:
        findings += check_finite(detection.checkpoint.files, plan.used)
    if depth is Depth.FORWARD and not errors(findings) and plan.config is not None:
        from spec_convert.forward import forward_findings

        findings += forward_findings(plan)
    return findings


def _without_verifier(finding: Finding, verifier: Verifier | None) -> Finding:
    """What only a conversion needs the verifier for is no fault of a checkpoint that is judged without one."""
    if verifier is None and finding.rule == "aux-layer-ids-need-verifier":
        return replace(finding, level=Level.NOTE)
    return finding
