"""The catalogue: every finding that spec_convert can report, with its level, why it matters and what to do about it."""

from __future__ import annotations

from spec_convert.findings import Finding, Rule
from spec_convert.rules import configs, exports, layouts, requests, sources, vocabularies

_AREAS = (sources, layouts, configs, vocabularies, requests, exports)
RULES: dict[str, Rule] = {rule.code: rule for area in _AREAS for rule in area.RULES}


def found(rule: str, *, where: str, message: str, hint: str = "") -> Finding:
    """A finding with the level that the catalogue gives its rule. The rule must be in the catalogue."""
    entry = RULES[rule]
    return Finding(rule=entry.code, level=entry.level, where=where, message=message, hint=hint)
