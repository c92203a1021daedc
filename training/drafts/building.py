"""Fresh drafts of every kind: the config of its choices, and weights to begin with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from spec_convert.envelope import PROPOSED_TOKENS
from spec_convert.errors import UsageError
from spec_convert.models.draft import Draft
from spec_convert.training.drafts import eagle, eagle3, families, parallel
from spec_convert.training.drafts.shape import DraftShape
from spec_convert.training.drafts.wanted import Vocabulary, Wanted
from spec_convert.verifier import Verifier


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a kind of draft is made, by the name that users give it.

    ``unified``: the `speculators_model_type` of its checkpoints. ``heeds``: the choices of a `DraftShape` that mean
    something for it. ``shares``: the tables of the verifier that it borrows instead of training its own.
    """

    unified: str
    heeds: frozenset[str]
    shares: frozenset[str]
    build: Callable[[Wanted], Draft]


EMBEDDING, BOTH = frozenset({"embed_tokens"}), frozenset({"embed_tokens", "lm_head"})
EAGLE = Kind(unified="eagle", heeds=families.HEEDS, shares=BOTH, build=eagle.eagle)
EAGLE3 = families.HEEDS | eagle3.HEEDS
KINDS: dict[str, Kind] = {
    "eagle3": Kind(unified="eagle3", heeds=EAGLE3, shares=EMBEDDING, build=eagle3.own_head),
    "eagle3-shared-head": Kind(unified="eagle3", heeds=EAGLE3, shares=BOTH, build=eagle3.shared_head),
    "eagle": EAGLE,
    "hass": EAGLE,
    "eagle-mlp": Kind(unified="eagle_mlp", heeds=eagle.MLP_HEEDS, shares=frozenset(), build=eagle.mlp),
    "p-eagle": Kind(
        unified="peagle", heeds=families.HEEDS | parallel.HEEDS, shares=frozenset(), build=parallel.parallel
    ),
}


def new_draft(  # noqa: PLR0913  the choices, each by name
    kind: str,
    verifier: Verifier,
    shape: DraftShape,
    *,
    vocabulary: Vocabulary | None,
    seed: int,
    speculative_tokens: int = PROPOSED_TOKENS,
) -> Draft:
    """An untrained draft in float32 on the CPU, the same for the same seed. What of it trains requires a gradient.

    ``vocabulary`` None: the verifier's whole one. Raises UsageError when the choices do not fit the kind or the
    verifier, Unreadable when the verifier cannot be read.
    """
    row = kind_of(kind)
    shape.require_for(kind, row.heeds, verifier)
    wanted = Wanted(
        verifier=verifier,
        shape=shape,
        vocabulary=vocabulary,
        generator=torch.Generator().manual_seed(seed),
        speculative_tokens=speculative_tokens,
    )
    return row.build(wanted).train()


def kind_of(name: str) -> Kind:
    """Raises UsageError when there is no such kind."""
    if name not in KINDS:
        raise UsageError(f"there is no draft of kind `{name}`", hint=f"one of {', '.join(KINDS)}")
    return KINDS[name]
