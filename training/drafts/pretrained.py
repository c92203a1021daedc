"""Training that goes on with a draft: its weights and what its config says, whatever format it is in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.models.draft import Draft, VerifierTensors, borrows, build_draft
from spec_convert.models.load import read_torch
from spec_convert.narration import say
from spec_convert.open import open_checkpoint
from spec_convert.servable import servable
from spec_convert.training.drafts.building import Kind, kind_of
from spec_convert.training.drafts.eagle3 import FREEZING
from spec_convert.training.drafts.shape import DraftShape
from spec_convert.training.drafts.weights import embedding_and_head
from spec_convert.verifier import Verifier


def pretrained_draft(source: str | Path, verifier: Verifier, *, kind: str, shape: DraftShape) -> Draft:
    """The draft at ``source``, a folder or a Hub id in any format known here, in float32 on the CPU.

    Tables that drafts of this kind share are the verifier's again where the draft holds them to the bit; an embedding
    that is another one is kept, and does not train. ``shape`` may choose only what the draft is. Raises UsageError,
    Refused or Unreadable when it is a draft of another kind, verifier or shape, or cannot be read.
    """
    row = kind_of(kind)
    shape.require_for(kind, row.heeds, verifier)
    found = servable(source, verifier=_address(verifier))
    config, checkpoint = found.config, open_checkpoint(found.draft)
    if config.speculators_model_type != row.unified:
        raise UsageError(
            f"{source} is a draft of type {config.speculators_model_type}; those of kind {kind} are {row.unified}",
            hint="give `--draft` the kind that it is",
        )
    _require_shape(config.model_dump(mode="json"), shape, source)
    tensors = {name: read_torch(checkpoint, name, torch.float32) for name in checkpoint}
    embedding, head = embedding_and_head(verifier) if row.shares else (None, None)
    theirs = VerifierTensors(embed_tokens=embedding, lm_head=head)
    kept = _share(tensors, theirs, row)
    if ("lm_head" in row.shares) != ("lm_head" in borrows(config, tensors)):
        raise _other_head(source, kind)
    draft = build_draft(config, tensors, theirs)
    for name in kept:
        draft.get_parameter(f"{name}.weight").requires_grad_(False)
    if kind == "eagle3-shared-head":
        say(FREEZING)
    return draft.train()


def _address(verifier: Verifier) -> str:
    """By which the same verifier is opened again."""
    revision = verifier.files.revision
    return verifier.name if revision is None else f"hf://{verifier.name}@{revision}"


def _share(tensors: dict[str, Tensor], theirs: VerifierTensors, row: Kind) -> list[str]:
    """Take the copies of the verifier's tables out of ``tensors``. Returns those in their place that are no copies."""
    kept = []
    for name in sorted(row.shares):
        table, own = getattr(theirs, name), tensors.get(f"{name}.weight")
        if own is None or own.shape != table.shape:  # a draft of another width has an embedding that trains
            continue
        if torch.equal(own, table):
            del tensors[f"{name}.weight"]
        else:
            kept.append(name)
    return kept


def _other_head(source: str | Path, kind: str) -> UsageError:
    if kind == "eagle3-shared-head":
        message = f"{source} has a head that is not its verifier's, and drafts of kind {kind} share that one"
        return UsageError(message, hint="give `--draft eagle3`")
    message = f"{source} shares its verifier's head, and drafts of kind {kind} train their own"
    return UsageError(message, hint="give `--draft eagle3-shared-head`")


def _require_shape(config: Mapping[str, Any], shape: DraftShape, source: str | Path) -> None:
    facts = {**config.get("transformer_layer_config", {}), **config}
    facts |= {"target_layers": facts.get("eagle_aux_hidden_state_layer_ids")}
    facts |= {"num_hidden_layers": facts["mlp_layers"]} if "mlp_layers" in facts else {}
    for name, value in shape.chosen.items():
        ours = list(value) if isinstance(value, tuple) else value
        # The positions of a saved draft are its verifier's, whatever was chosen.
        if name != "max_position_embeddings" and facts.get(name) != ours:
            raise UsageError(
                f"{source} has {name} {facts.get(name)}, not {ours}",
                hint="leave the choice out: a draft that training goes on with stays what it is",
            )
