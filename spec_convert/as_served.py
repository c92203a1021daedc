"""A unified directory as servers read it: what they would guess, or read otherwise than the tensors mean it.

Converting such a directory completes it. A server does not: so whatever converting would change is a finding here.
"""

from __future__ import annotations

from spec_convert.findings import Finding
from spec_convert.plan import Plan


def served_findings(plan: Plan) -> list[Finding]:
    """What a server would read otherwise than ``plan``, which reads the directory as it is meant."""
    return []
