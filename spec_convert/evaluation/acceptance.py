"""Which drafted tokens a verifier accepts, and what it says after them: the greedy rule and the sampled one.

The sampled rule leaves the verifier's distribution unchanged (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv
2302.01318): a token x ~ q is kept with probability min(1, p(x) / q(x)), else replaced by one from max(p - q, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from spec_convert.errors import UsageError


class Proposal(NamedTuple):
    """K drafted tokens, each with the logits that it was chosen from."""

    token_ids: list[int]
    logits: Tensor  # [K, V] over the verifier's vocabulary: -inf for tokens that the draft cannot say


class Verdict(NamedTuple):
    """What a verifier pass makes of a proposal: its first ``accepted`` tokens stand, ``token_id`` comes after them."""

    accepted: int
    token_id: int


class Strategy(Protocol):
    """How tokens are chosen, by the draft and by the verifier."""

    def choose(self, logits: Tensor) -> int:
        """A token from its logits [V]."""

    def verify(self, proposal: Proposal, logits: Tensor) -> Verdict:
        """``logits`` [K+1, V] are the verifier's: of each drafted token, and of the one after them."""


class Greedy:
    """The most probable token, always."""

    def choose(self, logits: Tensor) -> int:
        return int(logits.argmax())

    def verify(self, proposal: Proposal, logits: Tensor) -> Verdict:
        return accept_greedy(proposal, logits)


@dataclass(frozen=True, slots=True)
class Sampled:
    """Tokens drawn from softmax(logits / temperature). The generator lives on the device of the logits."""

    temperature: float
    generator: torch.Generator

    def choose(self, logits: Tensor) -> int:
        return draw(probabilities(logits, self.temperature), self.generator)

    def verify(self, proposal: Proposal, logits: Tensor) -> Verdict:
        return accept_sampled(proposal, logits, self.temperature, self.generator)


def accept_greedy(proposal: Proposal, logits: Tensor) -> Verdict:
    """Drafted tokens stand up to the first that is not the verifier's most probable one."""
    own = logits.argmax(dim=-1).tolist()
    accepted = 0
    while accepted < len(proposal.token_ids) and proposal.token_ids[accepted] == own[accepted]:
        accepted += 1
    return Verdict(accepted, own[accepted])


def accept_sampled(proposal: Proposal, logits: Tensor, temperature: float, generator: torch.Generator) -> Verdict:
    """Drafted tokens stand with probability min(1, p/q), one after another; the first that falls is replaced."""
    verifier = probabilities(logits, temperature)
    draft = probabilities(proposal.logits, temperature)
    coins = torch.rand(len(proposal.token_ids), generator=generator, device=logits.device).tolist()
    for index, (token, coin) in enumerate(zip(proposal.token_ids, coins, strict=True)):
        p, q = verifier[index], draft[index]
        if coin >= chance(p, q, token):
            return Verdict(index, draw(residual(p, q), generator))
    return Verdict(len(proposal.token_ids), draw(verifier[-1], generator))


def require_numbers(logits: Tensor, whose: str) -> None:
    """Raises UsageError for NaN, which says token 0 on both sides and would look like a perfect draft."""
    if bool(logits.isnan().any()):
        kind = str(logits.dtype).removeprefix("torch.")
        raise UsageError(
            f"the {whose} computes no numbers in {kind}", hint="--dtype float32 or bfloat16, which reach further"
        )


def probabilities(logits: Tensor, temperature: float) -> Tensor:
    """softmax(logits / temperature) over the last dimension, in float32 whatever the model computes in."""
    return (logits.float() / temperature).softmax(dim=-1)


def chance(p: Tensor, q: Tensor, token: int) -> float:
    """The probability that ``token``, drawn from q [V], stands before a verifier that says p [V]."""
    return min(1.0, float(p[token]) / float(q[token]))


def residual(p: Tensor, q: Tensor) -> Tensor:
    """The distribution that replaces a rejected token: max(p - q, 0), normalised. [V]"""
    rest = (p - q).clamp(min=0)
    # Where rounding leaves nothing p and q are the same, and so is any mixture of them.
    return rest / rest.sum() if rest.any() else p


def overlap(verifier: Tensor, draft: Tensor, temperature: float) -> Tensor:
    """alpha = sum over the vocabulary of min(p, q), from logits [..., V]: the chance that a sampled draft stands."""
    both = torch.minimum(probabilities(verifier, temperature), probabilities(draft, temperature))
    return both.sum(dim=-1)


def draw(p: Tensor, generator: torch.Generator) -> int:
    return int(torch.multinomial(p, 1, generator=generator))
