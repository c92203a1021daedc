"""The catalogue: every finding that spec_convert can report, with its level, why it matters and what to do about it."""

from __future__ import annotations

from spec_convert.findings import Finding, Rule
from spec_convert.rules import acceptance, configs, exports, layouts, requests, served, sources, vocabularies, weights

AREAS = (sources, layouts, configs, vocabularies, served, weights, requests, exports, acceptance)
RULES: dict[str, Rule] = {rule.code: rule for area in AREAS for rule in area.RULES}


def found(rule: str, *, where: str, message: str, hint: str = "") -> Finding:
    """A finding with the level that the catalogue gives its rule. The rule must be in the catalogue."""
    entry = RULES[rule]
    return Finding(rule=entry.code, level=entry.level, where=where, message=message, hint=hint)
