"""What an objective tells of a batch besides its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from spec_convert.models.contract import Draft
from spec_convert.training.objectives.layout import Layout
from spec_convert.training.objectives.sums import Sums
from spec_convert.training.objectives.tiles import Judged


def zero_loss(draft: Draft) -> Tensor:
    """A loss of nothing, with a gradient of zero for every parameter."""
    return torch.stack([parameter.sum() for parameter in draft.parameters() if parameter.requires_grad]).sum() * 0.0


def sums_of(layout: Layout, losses: Tensor, judged: Judged, windows: Tensor) -> Sums:
    """Of ``losses`` [K, U], hits and alpha by the token after which was guessed. ``windows`` [K, S] bool, by row."""
    weight = layout.counted.sum(dim=1)
    sums = {"loss": (losses * layout.there).sum(dim=1), "weight": weight}
    if judged.hits is not None and judged.alpha is not None:
        hits, alpha = layout.by_row(judged.hits), layout.by_row(judged.alpha)
        joint = hits.long().cumprod(dim=0) * windows
        sums |= {
            "rows": weight, "hits": hits.sum(dim=1), "windows": windows.sum(dim=1), "joint": joint.sum(dim=1),
            "alpha": (alpha * windows).sum(dim=1),
        }  # fmt: skip
    return Sums.of({name: value.double().cpu() for name, value in sums.items()}, steps=len(windows))
