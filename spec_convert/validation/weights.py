"""What the numbers of a draft tell: each is looked at once, and compared with the verifier's where it matters."""

from __future__ import annotations

from collections.abc import Iterator

from spec_convert.errors import Unreadable
from spec_convert.findings import Finding
from spec_convert.plan import Plan
from spec_convert.tensors import check_numbers
from spec_convert.validation.comparing import Tables, against_verifier, repeated_rows
from spec_convert.validation.tokenizer import tokenizer_findings


def weight_findings(plan: Plan) -> Iterator[Finding]:
    """What is wrong with the numbers that ``plan`` would take over. Streams: memory does not grow with the draft.

    Raises Unreadable when the draft cannot be read to its end. What is wrong with the verifier is a finding.
    """
    checkpoint, verifier = plan.detection.checkpoint, plan.request.verifier
    for name in () if plan.detection.inside_target else checkpoint.weight_files:
        checkpoint.files.path(name)  # a remote file is downloaded once, rather than read piece by piece
    # An MLP draft that was exported as EAGLE-1 has a layer that does nothing.
    may_idle = (plan.config or {}).get("speculators_model_type") == "eagle"
    yield from check_numbers(checkpoint.files, plan.used, may_idle=may_idle)
    draft = Tables(plan)
    yield from repeated_rows(draft)
    if verifier is not None:
        yield from _as_findings(against_verifier(draft, verifier))
        yield from _as_findings(tokenizer_findings(verifier))


def _as_findings(seen: Iterator[Finding]) -> Iterator[Finding]:
    """What a check sees; a file of the verifier that it cannot read is one more finding."""
    try:
        yield from seen
    except Unreadable as problem:
        yield problem.finding
