"""What is asked: a conversation whose assistant turns are still to be written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """User turns, answered one after another; each answer becomes part of the next turn's context."""

    turns: tuple[str, ...]
    system: str | None = None
