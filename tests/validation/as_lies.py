"""Unified directories as they lie on disk, for tests that break them in one place: what servers read, no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import spec_convert
from spec_convert.findings import Finding

from ..tiny import Tiny

LAYER = "transformer_layer_config"


def unified(draft: Tiny, *, layer: dict[str, Any] | None = None, **changes: Any) -> Tiny:
    """The draft as converting it writes it, with other keys at the top and in the layer (an ellipsis takes one out)."""
    converted = draft.convert()
    draft.config, draft.tensors = converted.config, converted.tensors
    kept = {key: value for key, value in (converted.config.get(LAYER, {}) | (layer or {})).items() if value is not ...}
    return draft.set(**{LAYER: kept} | changes if kept else changes)


def findings(draft: Tiny | Path, **options: Any) -> dict[str, Finding]:
    """What `validate` says, by rule; it must not say one thing twice."""
    (checked,) = spec_convert.validate(draft.write() if isinstance(draft, Tiny) else draft, **options).checked
    by_rule = {finding.rule: finding for finding in checked.findings}
    assert len(by_rule) == len(checked.findings), [(f.rule, f.where, f.message) for f in checked.findings]
    return by_rule
