"""How each kind of draft is trained unless the user says otherwise: the settings of the authors, where they work.

What differs from the authors', and why: 3 steps for EAGLE-3 instead of 7, because servers draft 3 to 5 tokens and each
step costs as much as the first; masks of HASS that hide (theirs let 0.4 of the attention through); rows that a server
never asks for are not learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["eagle3", "eagle3-shared-head", "eagle", "hass", "eagle-mlp", "p-eagle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """``until`` this share of the steps: the mix of losses, and by what the learning rate is multiplied."""

    loss: str
    until: float = 1.0
    rate: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """``steps`` of a chain, of which each counts ``decay`` times the one before it.

    ``detach``: no gradient flows from a step to the one before through the states. ``noise``: on the verifier's states.
    ``clip``: of the gradient's norm.
    """

    phases: tuple[Phase, ...]
    steps: int = 1
    decay: float = 1.0
    detach: bool = False
    noise: bool = False
    lr: float = 1e-4
    clip: float = 0.5


RECIPES: Mapping[Kind, Recipe] = {
    # arXiv 2503.01840; the decay of the authors' code
    "eagle3": Recipe(phases=(Phase(loss="soft_ce"),), steps=3, decay=0.8),
    "eagle3-shared-head": Recipe(phases=(Phase(loss="soft_ce"),), steps=3, decay=0.8),
    # arXiv 2401.15077
    "eagle": Recipe(phases=(Phase(loss="smooth_l1=1.0,soft_ce=0.1"),), noise=True, lr=3e-5),
    # arXiv 2408.15766: 40 epochs of alignment, then 10 with distillation of the likeliest tokens at a lower rate
    "hass": Recipe(
        phases=(
            Phase(loss="smooth_l1=1.0,soft_ce=0.1", until=0.8),
            Phase(loss="smooth_l1=1.0,soft_ce=0.1,top_k=1.0", rate=1 / 3),
        ),
        steps=3, detach=True, noise=True, lr=3e-5,
    ),
    "eagle-mlp": Recipe(phases=(Phase(loss="soft_ce"),)),
    # eight tokens at once, each of them a depth
    "p-eagle": Recipe(phases=(Phase(loss="forward_kl"),), steps=8),
}  # fmt: skip
