"""A hypothesis: one thing that may be wrong, as a change of what the draft is made of, and what to type if it is so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spec_convert.doctor.parts import Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """``flags``: with which `convert` makes the draft right; None: it cannot. ``words``: what else is to be done."""

    flags: tuple[str, ...] | None = None
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """Two of one ``aspect`` exclude each other. ``says`` what is the case if the draft drafts better after ``edit``."""

    code: str
    aspect: str
    says: str
    edit: Callable[[Parts], Parts]
    fix: Fix


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What hypotheses take of the verifier. ``norm``: the weight of its final norm."""

    layers: int
    config: Mapping[str, Any]
    norm: Tensor
