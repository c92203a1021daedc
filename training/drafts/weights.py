"""The first weights of a draft: what its verifier has learned, where there is a place for it, and small noise."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spec_convert.models.load import read_torch
from spec_convert.verifier import Verifier

STD = 0.02


def embedding_and_head(verifier: Verifier) -> tuple[Tensor, Tensor]:
    """[V, Ht] both, in float32: one tensor where the verifier has tied them."""
    embedding = read_torch(verifier.checkpoint, verifier.embedding_name, torch.float32)
    if verifier.head_name == verifier.embedding_name:
        return embedding, embedding
    return embedding, read_torch(verifier.checkpoint, verifier.head_name, torch.float32)


def fresh(
    shapes: Mapping[str, torch.Size], given: Mapping[str, Tensor], generator: torch.Generator
) -> dict[str, Tensor]:
    """A tensor of each name: the ``given`` one; else normal noise, ones for a norm and zeros for a bias."""
    return {name: given[name] if name in given else _fresh(name, shape, generator) for name, shape in shapes.items()}


def _fresh(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if len(shape) > 1:
        return torch.randn(shape, generator=generator) * STD
    return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)


def passing_through(inputs: int, passed: Tensor, generator: torch.Generator) -> Tensor:
    """[H, inputs]: a fusion that begins as ``passed`` [H, Ht] on the last of its inputs, with a little of all others.

    The last is the verifier's highest state, from which its head tells most of the next tokens already.
    """
    little = torch.randn(len(passed), inputs, generator=generator) * (0.1 / math.sqrt(3 * inputs))
    little[:, inputs - passed.shape[1] :] += passed
    return little


def projection(theirs: int, own: int, generator: torch.Generator) -> Tensor:
    """[Ht, H], a random one that keeps lengths and angles: exactly into a wider space, on average into a narrower."""
    turned = nn.init.orthogonal_(torch.empty(theirs, own), generator=generator)
    return turned * math.sqrt(max(1.0, theirs / own))
