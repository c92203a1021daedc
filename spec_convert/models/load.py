"""Opens a unified directory as a torch module, with what it shares with its verifier."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from spec_convert.checkpoint import Checkpoint
from spec_convert.models.errors import DraftError
from spec_convert.tensor import FLOATS

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from spec_convert.models.draft import Config, Draft, VerifierTensors
    from spec_convert.verifier import Verifier


def load_draft(path: str | Path, verifier: str | Path | None = None, dtype: torch.dtype | None = None) -> Draft:
    """The draft in eval mode, in float32 unless ``dtype`` is given.

    ``verifier`` is a folder or a Hub id; None: the one that the draft's config names. Only its embedding and its head
    are read, and only when the draft has none of its own.
    """
    import torch

    from spec_convert.models.draft import borrows, build_draft
    from spec_convert.open import open_checkpoint
    from spec_convert.verifier import open_verifier

    checkpoint = open_checkpoint(str(path))
    config = unified_config(checkpoint)
    kind = dtype or torch.float32
    tensors = {name: read_torch(checkpoint, name, kind) for name in checkpoint}
    source = str(verifier or config.speculators_config.verifier.name_or_path)
    wanted = borrows(config, tensors)
    shared = shared_tensors(open_verifier(source), wanted, kind) if wanted else None
    try:
        return build_draft(config, tensors, shared).eval()
    except DraftError as error:
        raise DraftError(f"{checkpoint.source}: {error.message}", hint=error.hint) from error


def unified_config(checkpoint: Checkpoint) -> Config:
    from pydantic import ValidationError

    from spec_convert.unified import UNIFIED

    try:
        return UNIFIED.validate_python(checkpoint.config or {})
    except ValidationError as error:
        if error.errors()[0]["type"] == "union_tag_invalid":
            kind, known = checkpoint.get("speculators_model_type"), error.errors()[0]["ctx"]["expected_tags"]
            message = f"{checkpoint.source}: there is no model here for unified drafts of type {kind!r}"
            raise DraftError(message, hint=f"there are models for {known}") from error
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}".lstrip(": ") for one in error.errors())
        raise DraftError(
            f"{checkpoint.source}: config.json is not a unified config: {wrong}",
            hint=f"make one: spec-convert convert {checkpoint.source} OUTPUT --verifier BASE",
        ) from error


def shared_tensors(verifier: Verifier, wanted: Collection[str], dtype: torch.dtype) -> VerifierTensors:
    """Those of the verifier's tables (``embed_tokens``, ``lm_head``) that are wanted; the others are not read."""
    from spec_convert.models.draft import VerifierTensors

    checkpoint = verifier.checkpoint
    embedding = read_torch(checkpoint, verifier.embedding_name, dtype) if "embed_tokens" in wanted else None
    head = read_torch(checkpoint, verifier.head_name, dtype) if "lm_head" in wanted else None
    return VerifierTensors(embed_tokens=embedding, lm_head=head)


def read_torch(checkpoint: Checkpoint, name: str, dtype: torch.dtype) -> Tensor:
    """One tensor of a checkpoint as torch sees it; see `as_torch`."""
    try:
        return as_torch(checkpoint.read(name), checkpoint.tensors[name].dtype, dtype)
    except DraftError as error:
        raise DraftError(f"{checkpoint.source}: {name} {error.message}") from error


def as_torch(values: np.ndarray, stored: str, dtype: torch.dtype) -> Tensor:
    """Values as `Checkpoint.read` gives them, as torch sees them. Floats become ``dtype``; maps stay what they are."""
    import torch

    if stored == "BF16":  # numpy has no bfloat16: these are its bits
        return torch.tensor(values.view("<i2")).view(torch.bfloat16).to(dtype)
    if stored in FLOATS:
        return torch.tensor(values).to(dtype)
    if stored in ("I64", "BOOL"):
        return torch.tensor(values)
    raise DraftError(f"is {stored}, a type that no draft computes with")
