"""What one format says of a checkpoint: what speaks for it, what against it, and how sure that makes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """``confidence`` is 0 when something required is absent, else at least 0.5; ``nearness`` ranks the losers."""

    supports: tuple[str, ...]
    against: tuple[str, ...]
    confidence: float
    nearness: float
    failure: str = ""


def weigh(
    *,
    required: Mapping[str, bool],
    supporting: Mapping[str, bool] | None = None,
    against: Mapping[str, bool] | None = None,
) -> Evidence:
    """Evidence from statements in words and whether each holds.

    All of ``required`` must hold. Half of the confidence comes from that, half from the share of ``supporting`` that
    holds; each statement of ``against`` that holds halves the whole.
    """
    supporting, against = supporting or {}, against or {}
    contrary = [words for words, holds in against.items() if holds]
    holding = [words for words, holds in {**required, **supporting}.items() if holds]
    missing = [f"not: {words}" for words, holds in required.items() if not holds]
    share = sum(supporting.values()) / len(supporting) if supporting else 1.0
    confidence = 0.0 if missing else (0.5 + 0.5 * share) * 0.5 ** len(contrary)
    return Evidence(
        supports=tuple(holding),
        against=tuple(missing + contrary),
        confidence=round(confidence, 3),
        nearness=sum(required.values()) / max(len(required), 1),
    )


def failed(reason: str) -> Evidence:
    """What stands for the word of a format that could not be asked."""
    return Evidence(supports=(), against=(f"it failed: {reason}",), confidence=0.0, nearness=0.0, failure=reason)
