"""How good a draft is on rows of its verifier: two guesses a row, the second from the draft's own state."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spec_convert.doctor.heard import Heard, Text
from spec_convert.doctor.parts import Parts
from spec_convert.evaluation.acceptance import overlap
from spec_convert.models.contract import Draft
from spec_convert.models.errors import DraftError
from spec_convert.models.layers import causal

SURE = 3.0  # standard errors: of some twenty hypotheses none passes by chance
MATTERS = 0.05  # tokens a pass: less than that is no reason for an acceptance near nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """``accepted`` [R]: how many of two guesses of each row stand. ``overlap`` [R]: the sum of min(p, q) of the first.

    ``refused``: why the parts make no draft; nothing is accepted of it then. ``no_numbers``: rows whose logits are NaN.
    """

    accepted: Tensor
    overlap: Tensor
    refused: str = ""
    no_numbers: int = 0

    @property
    def first(self) -> float:
        """The share of rows whose first guess is the verifier's token."""
        return float((self.accepted >= 1).double().mean())

    @property
    def second(self) -> float:
        """The share of rows whose two guesses both are."""
        return float((self.accepted == 2).double().mean())

    @property
    def alpha(self) -> float:
        return float(self.overlap.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """Accepted tokens a row more than before, and the standard error of that on these rows, compared row by row."""

    tokens: float
    error: float

    @classmethod
    def of(cls, after: Score, before: Score) -> Gain:
        difference = after.accepted - before.accepted
        return cls(tokens=float(difference.mean()), error=float(difference.std()) / math.sqrt(len(difference)))

    @property
    def sure(self) -> bool:
        return self.tokens > MATTERS and self.tokens > SURE * self.error


@torch.inference_mode()
def score(parts: Parts, heard: Heard) -> Score:
    try:
        draft = parts.build(heard.device)
    except DraftError as problem:
        nothing = torch.zeros(heard.rows, dtype=torch.float64)
        return Score(accepted=nothing, overlap=nothing, refused=problem.message)
    judged = [_judge(draft, parts, text) for text in heard.texts]
    accepted, alike, broken = (torch.cat(column).double().cpu() for column in zip(*judged, strict=True))
    return Score(accepted=accepted, overlap=alike, no_numbers=int(broken.sum()))


def _judge(draft: Draft, parts: Parts, text: Text) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row: how many of two guesses stand, the overlap of the first, and whether its logits are no numbers."""
    rows = slice(text.first, text.first + text.rows)
    attend = _Chains(text.first)
    states = torch.cat([text.states[state] for state in parts.fed], dim=-1).to(parts.dtype)
    if parts.elsewhere:
        states = states.roll(len(states) // 2, dims=0)
    read = draft.states(text.following[None], states[None], fed_back=False, attend=attend)
    first = _logits(draft, parts, read.for_head[0, rows])
    wanted = text.logits.argmax(dim=-1)
    # Where the first guess stands, the token that it is fed next is the verifier's; elsewhere the second never counts.
    positions = torch.arange(rows.start, rows.stop, device=wanted.device)[None] + 1
    then = draft.states(wanted[None, :-1], read.hidden_states[:, rows], positions, fed_back=True, attend=attend)
    second = _logits(draft, parts, then.for_head[0])
    broken = first.isnan().any(dim=-1)
    hit = (first.argmax(dim=-1) == wanted[:-1]) & ~broken
    both = hit & (second.argmax(dim=-1) == wanted[1:]) & ~second.isnan().any(dim=-1)
    return hit.long() + both.long(), overlap(text.logits[:-1], first, 1.0).nan_to_num(0.0), broken


def _logits(draft: Draft, parts: Parts, states: Tensor) -> Tensor:
    if parts.head_norm is not None:
        norm = parts.head_norm.to(states)
        states = F.rms_norm(states, norm.shape, norm)
    return draft.to_target_vocabulary(F.linear(states, draft.head)[None])[0]


class _Chains:
    """Attention of a draft that reads a text, and then goes on by one token from each row that is judged."""

    def __init__(self, first: int) -> None:
        """``first``: the row that the first chain goes on from."""
        self._first = first
        self._read: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if layer not in self._read:
            self._read[layer] = key, value
            return causal(layer, query, key, value)
        keys, values = self._read[layer]
        chains = query.shape[2]
        up_to_it = torch.ones(chains, keys.shape[2], dtype=torch.bool, device=key.device).tril(self._first)
        itself = torch.eye(chains, dtype=torch.bool, device=key.device)
        key, value = torch.cat((keys, key), dim=2), torch.cat((values, value), dim=2)
        mask = torch.cat((up_to_it, itself), dim=1)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
