"""What the numbers of a draft tell: each is looked at once, and compared with the verifier's where it matters."""

from __future__ import annotations

from collections.abc import Iterator

from spec_convert.findings import Finding
from spec_convert.plan import Plan
from spec_convert.tensors import check_finite


def weight_findings(plan: Plan) -> Iterator[Finding]:
    """What is wrong with the numbers that ``plan`` would take over. Streams: memory does not grow with the draft."""
    yield from check_finite(plan.detection.checkpoint.files, plan.used)
