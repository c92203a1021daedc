"""P-EAGLE (arXiv 2602.01469): EAGLE-3's tensors, and a state that stands for those not known yet.

Tokens after the first are guessed in the same pass, in rows that embed `mask_token_id` beside `mask_hidden`, fused as
the verifier's states are. Nothing is fed back. Source: what vLLM 0.32 computes with `parallel_drafting`.
"""

from __future__ import annotations

from spec_convert.checkpoint import Checkpoint
from spec_convert.facts import Facts
from spec_convert.formats import Described, Draft, Layout
from spec_convert.plugins.families import eagle3
from spec_convert.plugins.families.aux_layers import Convention
from spec_convert.tensor_map import TensorMap, keep, refuse

# fmt: off
MASK = TensorMap(
    keep("mask_hidden",              shape="1 1 aux*target"),
    refuse("fc_norm.{i:int}.weight", because="servers build no norms per state for drafts of this type"),
)
# fmt: on


def layout(checkpoint: Checkpoint, facts: Facts, config: Facts) -> Layout:
    """See `eagle3.layout`."""
    norms = [eagle3.NORM_BEFORE_FC] if "input_norm.weight" in checkpoint else []
    return eagle3.layout(checkpoint, facts, config, MASK, *norms)


def describe(
    draft: Draft, facts: Facts, config: Facts, convention: Convention = "unified", *, residual: bool | None = None
) -> Described:
    """The unified `peagle` config. ``residual``: whether the dialect's code always takes it after the norm.

    Without a word it is taken before the norm, as all readers agree.
    """
    mask = config.require({"mask_token_id": int})
    if residual is None:
        residual = eagle3.said_of_the_residual(draft, config) or False
    dialect = eagle3.Dialect(norm_before_residual=residual, norm_output=False, convention=convention)
    described = eagle3.describe(draft, facts, config, dialect, kind="peagle")
    if described.config is None:
        return described
    own = {"embed_requires_grad": "embed_tokens.weight" in draft.mapped.targets, **mask}
    return Described(config={**described.config, **own}, findings=described.findings)
