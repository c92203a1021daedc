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
MATTERS = 0.01  # tokens a row; what a draft gains less from is no mistake, but how it happened to be trained
LEARNED = 0.1  # tokens a row: what a draft that was trained for this verifier makes of its states, at the very least


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Of each row [R]: how many of its two guesses are the verifier's tokens (``accepted``), the sum of min(p, q) of
    the first (``overlap``), and how many would be accepted on average if they were drawn (``expected``).

    ``expected`` moves with every change of the draft, ``accepted`` only when the likeliest token changes: it takes many
    fewer rows to tell a gain from noise. ``refused``: why the parts make no draft; nothing is accepted of it then.
    ``no_numbers``: rows whose logits are NaN.
    """

    accepted: Tensor
    overlap: Tensor
    expected: Tensor
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
    """Tokens a row that are expected to be accepted more than before, compared row by row, with the standard error.

    ``greedy``: whether as many likeliest tokens are right as before, but for noise.
    """

    tokens: float
    error: float
    greedy: bool

    @classmethod
    def of(cls, after: Score, before: Score) -> Gain:
        tokens, error = _mean(after.expected - before.expected)
        accepted, noise = _mean(after.accepted - before.accepted)
        return cls(tokens=tokens, error=error, greedy=accepted >= -noise)

    @property
    def sure(self) -> bool:
        return self.greedy and self.tokens > MATTERS and self.tokens > SURE * self.error

    @property
    def loses(self) -> bool:
        return self.tokens < -SURE * self.error


def has_learned(score: Score, blind: Score) -> bool:
    """Whether the draft guesses better with the verifier's states than with those of other tokens."""
    gain = Gain.of(score, blind)
    return gain.sure and gain.tokens > LEARNED


def _mean(rows: Tensor) -> tuple[float, float]:
    return float(rows.mean()), float(rows.std()) / math.sqrt(len(rows))


@torch.inference_mode()
def score(parts: Parts, heard: Heard) -> Score:
    try:
        draft = parts.build(heard.device)
    except DraftError as problem:
        nothing = torch.zeros(heard.rows, dtype=torch.float64)
        return Score(accepted=nothing, overlap=nothing, expected=nothing, refused=problem.message)
    judged = [_judge(draft, parts, text) for text in heard.texts]
    accepted, alike, expected, broken = (torch.cat(column).double().cpu() for column in zip(*judged, strict=True))
    return Score(accepted=accepted, overlap=alike, expected=expected, no_numbers=int(broken.sum()))


def _judge(draft: Draft, parts: Parts, text: Text) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each row: accepted, overlap and expected as in `Score`, and whether its logits are NaN."""
    first, second = _guesses(draft, parts, text)
    wanted = text.logits.argmax(dim=-1)
    broken = first.isnan().any(dim=-1) | second.isnan().any(dim=-1)
    hit = (first.argmax(dim=-1) == wanted[:-1]) & ~broken
    both = hit & (second.argmax(dim=-1) == wanted[1:])
    alike = overlap(text.logits[:-1], first, 1.0).masked_fill(broken, 0.0)
    then = overlap(text.logits[1:], second, 1.0).masked_fill(broken, 0.0)
    return hit.long() + both.long(), alike, alike * (1 + then), broken


def _guesses(draft: Draft, parts: Parts, text: Text) -> tuple[Tensor, Tensor]:
    """The logits [R, V] of the first guess of each row and, as if that were right, of the second."""
    rows = slice(text.first, text.first + text.rows)
    attend = _Chains(text.first)
    states = torch.cat([text.states[state] for state in parts.fed], dim=-1).to(parts.dtype)
    if parts.elsewhere:
        states = states.roll(len(states) // 2, dims=0)
    read = draft.states(text.following[None], states[None], fed_back=False, attend=attend)
    token = text.logits[:-1].argmax(dim=-1)[None]
    at = torch.arange(rows.start, rows.stop, device=token.device)[None] + 1
    then = draft.states(token, read.hidden_states[:, rows], at, fed_back=True, attend=attend)
    return _logits(draft, parts, read.for_head[0, rows]), _logits(draft, parts, then.for_head[0])


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
