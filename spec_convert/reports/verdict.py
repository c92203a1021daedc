"""What one look at a checkpoint came to, in a few words: how deep it went, and what the checkpoint is good for."""

from __future__ import annotations

from spec_convert.findings import Checked, Level, in_words
from spec_convert.rules.sources import OUT_OF_REACH


def looked_at(checked: Checked) -> str:
    """For example ``level tensors``."""
    if checked.reached is None:
        return "not looked at"
    partly = " in part" if checked.missed is checked.reached else ""
    return f"level {checked.reached}{partly}"


def verdict(checked: Checked) -> str:
    """For example ``ready to convert``: no more than was looked at."""
    if any(finding.rule in OUT_OF_REACH for finding in checked.findings):
        return "no verdict: out of reach"
    if count := checked.counts[Level.ERROR]:
        return in_words({Level.ERROR: count})
    use = "serves as it lies" if checked.unified else "ready to convert"
    return f"{use}, if {', '.join(checked.set_aside)} may be set aside" if checked.set_aside else use
