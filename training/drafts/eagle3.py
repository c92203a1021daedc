"""Fresh EAGLE-3 drafts: with a head of their own, or with the verifier's."""

from __future__ import annotations

import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.models.draft import Draft, VerifierTensors
from spec_convert.models.eagle3 import Eagle3Draft
from spec_convert.narration import say
from spec_convert.training.capture.final_norm import norm_weight
from spec_convert.training.drafts.families import layer_facts
from spec_convert.training.drafts.shape import DraftShape
from spec_convert.training.drafts.wanted import Wanted, draft_vocab_size, target_ids
from spec_convert.training.drafts.weights import embedding_and_head, passing_through, projection
from spec_convert.unified import UNIFIED, Eagle3Config
from spec_convert.verifier import Verifier

HEEDS = frozenset({
    "target_layers", "norm_before_residual", "norm_before_fc", "fc_norm", "norm_output", "draft_vocab_size",
})  # fmt: skip
FREEZING = "Loading and freezing lm_head from target model (shared head variant)"


def own_head(wanted: Wanted) -> Draft:
    """The head begins as the verifier's rows of the draft's tokens, the last norm as the verifier's.

    The fusion begins by passing on the highest of the verifier's states, of which that head makes something from the
    first step on. A draft of another width than its verifier also has an embedding of its own, which trains: both
    tables, and what is passed on, then begin under one random projection, so that what was near stays near.
    """
    verifier, vocabulary = wanted.verifier, wanted.vocabulary
    config = _config(wanted, draft_vocab_size(wanted))
    width = config.transformer_layer_config.hidden_size
    embedding, their_head = embedding_and_head(verifier)
    head = their_head.clone() if vocabulary is None else their_head[target_ids(vocabulary)]
    given: dict[str, Tensor] = {}
    if vocabulary is not None:
        given["d2t"], given["t2d"] = vocabulary
    if width == verifier.hidden_size:
        shared, passed = embedding, torch.eye(width)
        given |= {"lm_head.weight": head, "norm.weight": norm_weight(verifier)}
    else:
        shared, turned = None, projection(verifier.hidden_size, width, wanted.generator)
        passed = turned.T
        given |= {"lm_head.weight": head @ turned, "embed_tokens.weight": embedding @ turned}
    given["fc.weight"] = _fusion(config, passed, wanted)
    with torch.device("meta"):
        empty = Eagle3Draft(config, embed_tokens=shared, lm_head=None)
    return wanted.filled(empty, given, VerifierTensors(embed_tokens=shared, lm_head=None))


def shared_head(wanted: Wanted) -> Draft:
    """Embedding and head are the verifier's and do not train; so the draft knows its whole vocabulary."""
    verifier = wanted.verifier
    wanted.refuse_vocabulary()
    if wanted.shape.draft_vocab_size not in (None, verifier.vocab_size):
        raise UsageError(
            f"draft_vocab_size is {wanted.shape.draft_vocab_size}, and the verifier's head, which is shared, knows "
            f"{verifier.vocab_size} tokens",
            hint="leave it out, or give `--draft eagle3`",
        )
    config = _config(wanted, verifier.vocab_size)
    wanted.require_width(config.transformer_layer_config.hidden_size, "the head")
    say(FREEZING)
    embedding, head = embedding_and_head(verifier)
    with torch.device("meta"):
        empty = Eagle3Draft(config, embed_tokens=embedding, lm_head=head)
    shared = VerifierTensors(embed_tokens=embedding, lm_head=head)
    fusion = _fusion(config, torch.eye(verifier.hidden_size), wanted)
    return wanted.filled(empty, {"norm.weight": norm_weight(verifier), "fc.weight": fusion}, shared)


def _fusion(config: Eagle3Config, passed: Tensor, wanted: Wanted) -> Tensor:
    states = config.transformer_layer_config.num_aux_hidden_states
    return passing_through(states * wanted.verifier.hidden_size, passed, wanted.generator)


def target_layers(verifier: Verifier, shape: DraftShape) -> tuple[int, ...]:
    """The boundary ids of the states that the draft fuses: as chosen, else 2, N//2 and N-3 of N layers.

    Raises UsageError for layers that this verifier does not have.
    """
    layers = verifier.num_hidden_layers
    ids = shape.target_layers or (2, layers // 2, layers - 3)
    if ids[-1] > layers or tuple(sorted(set(ids))) != ids:
        listed = ",".join(map(str, ids))
        what = (
            f"has no such layers as {listed}"
            if shape.target_layers
            else f"is too small for the usual layers ({listed})"
        )
        raise UsageError(
            f"{verifier.name} has {layers} layers: it {what}",
            hint=f"give `--target-layers` between 0 and {layers}, in rising order",
        )
    return ids


def _config(wanted: Wanted, draft_vocab_size: int) -> Eagle3Config:
    verifier, shape = wanted.verifier, wanted.shape
    if shape.norm_before_fc and shape.fc_norm:
        raise UsageError("norm_before_fc and fc_norm exclude each other", hint="choose one of them")
    layer = layer_facts(verifier, shape, may_norm_heads=True)
    ids = target_layers(verifier, shape)
    own = {
        "draft_vocab_size": draft_vocab_size,
        "norm_before_residual": bool(shape.norm_before_residual),
        "norm_before_fc": bool(shape.norm_before_fc),
        "fc_norm": bool(shape.fc_norm),
        "norm_output": bool(shape.norm_output),
        "target_hidden_size": verifier.hidden_size if verifier.hidden_size != layer["hidden_size"] else None,
        "eagle_aux_hidden_state_layer_ids": list(ids),
        "embed_requires_grad": False,
        "transformer_layer_config": layer | {"num_aux_hidden_states": len(ids)},
    }
    config = UNIFIED.validate_python(wanted.envelope("eagle3", "Eagle3Speculator") | own)
    assert isinstance(config, Eagle3Config)
    return config
