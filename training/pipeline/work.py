"""For rough estimates: the weights of a verifier and of a draft, and the operations that a token costs in training."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from spec_convert.training.pipeline.settings import Request
from spec_convert.training.recipes import RECIPES
from spec_convert.training.settings import FUSES, PRUNES
from spec_convert.verifier import Verifier, open_verifier

if TYPE_CHECKING:
    from spec_convert.training.settings import TrainSettings

FED = 3  # of the verifier's states, where nobody names them
FIRST = ".layers.0."


def verifier_weights(request: Request) -> int:
    """Without its embedding, which is looked up and not multiplied."""
    verifier = open_verifier(request.verifier)
    tensors = verifier.checkpoint.tensors
    return sum(prod(tensor.shape) for name, tensor in tensors.items() if name != verifier.embedding_name)


def draft_weights(settings: TrainSettings, request: Request) -> int:
    """Of layers like the verifier's, of what fuses their input, and of a head of the draft's own."""
    verifier = open_verifier(request.verifier)
    fused = len(settings.target_layers or range(FED)) if settings.draft in FUSES else 2
    layers = (settings.num_layers or 1) * _layer(verifier)
    head = _vocabulary(request, verifier) * verifier.hidden_size if settings.draft in PRUNES else 0
    return layers + fused * verifier.hidden_size**2 + head


def training_work(settings: TrainSettings, request: Request) -> float:
    """A pass forward costs two operations a weight, one back four; the verifier's own head says what is right."""
    verifier = open_verifier(request.verifier)
    steps = settings.ttt_steps or RECIPES[settings.draft].steps
    whole = verifier.vocab_size * verifier.hidden_size
    borrowed = 0 if settings.draft in PRUNES else whole
    return steps * 6 * (draft_weights(settings, request) + borrowed) + 2 * whole


def _layer(verifier: Verifier) -> int:
    tensors = verifier.checkpoint.tensors
    return sum(prod(tensor.shape) for name, tensor in tensors.items() if FIRST in f".{name}")


def _vocabulary(request: Request, verifier: Verifier) -> int:
    """Of the draft."""
    if "vocab" not in request.said:
        return verifier.vocab_size
    return int(request.said["vocab"].get("draft_vocab_size", 32000))
