"""Is a checkpoint right: everything that can be found wrong, at a level that costs as much as the user wants to pay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from spec_convert.as_served import served_findings
from spec_convert.detection import Detection, recognise
from spec_convert.errors import Refused, Unreadable, UsageError
from spec_convert.findings import Checked, Depth, Finding, Level, Report, errors
from spec_convert.formats import Request
from spec_convert.open import open_checkpoint
from spec_convert.plan import make_plan
from spec_convert.verifier import Verifier, open_verifier
from spec_convert.weights import weight_findings


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
    name, reached = None, None
    found: list[Finding] = []
    try:
        detection = recognise(open_checkpoint(source))
        name = detection.format
        for reached, seen in _look(detection, verifier, depth):  # noqa: B007  the last level is told
            found += seen
    except (Unreadable, Refused) as problem:
        found += problem.findings
    return Checked(source=source, format=name, findings=tuple(found), reached=reached)


def _look(detection: Detection, verifier: Verifier | None, depth: Depth) -> Iterator[tuple[Depth, list[Finding]]]:
    """What each level finds, as deep as was asked for, or until errors make running the draft pointless."""
    plan = make_plan(detection, Request(verifier=verifier))
    findings = [_without_verifier(finding, verifier) for finding in plan.findings]
    if detection.winner.is_unified(detection.checkpoint):
        findings += served_findings(plan)
    yield Depth.HEADERS, findings
    if depth is Depth.HEADERS:
        return
    weights = list(weight_findings(plan))
    yield Depth.TENSORS, weights
    if depth is Depth.TENSORS or errors([*findings, *weights]) or plan.config is None:
        return
    from spec_convert.forward import forward_findings

    yield Depth.FORWARD, forward_findings(plan)


def _without_verifier(finding: Finding, verifier: Verifier | None) -> Finding:
    """What only a conversion needs the verifier for is no fault of a checkpoint that is judged without one."""
    if verifier is None and finding.rule == "aux-layer-ids-need-verifier":
        return replace(finding, level=Level.NOTE)
    return finding
