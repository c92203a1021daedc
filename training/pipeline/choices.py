"""What one stage must know of another: the states that a draft is trained on have to be captured before."""

from __future__ import annotations

from spec_convert.errors import UsageError
from spec_convert.training.pipeline.settings import Request
from spec_convert.training.settings import FUSES


def layers_to_capture(request: Request) -> tuple[int, ...] | None:
    """The boundary ids that this draft is trained on; None: the usual ones of `generate`.

    Raises UsageError when [generate] leaves out one of them.
    """
    needed = _needed(request)
    said = request.said.get("generate", {}).get("layers")
    if needed and isinstance(said, list) and (absent := sorted(set(needed) - set(said))):
        raise UsageError(
            f"[generate]: `layers` leaves out {absent[0]}, which the draft of [train] is trained on",
            hint=f"layers = {list(needed)}, or leave it out",
        )
    return needed


def _needed(request: Request) -> tuple[int, ...] | None:
    from spec_convert.verifier import open_verifier

    train = request.said.get("train", {})
    fused = _fused(train) if train.get("draft") in FUSES else ()
    if train.get("draft") is None or fused is None:
        return None
    last = open_verifier(request.verifier).num_hidden_layers
    return (*sorted({*fused} - {last}), last)


def _fused(train: dict[str, object]) -> tuple[int, ...] | None:
    """The ids that [train] names, itself or in its draft config; None: the usual ones."""
    from spec_convert.training.drafts.reading import read_shape

    if isinstance(named := train.get("target_layers"), list):
        return tuple(named)
    config = train.get("draft_config")
    return read_shape(config).target_layers if isinstance(config, str) else None
