"""How many drafted tokens a verifier would accept, without a server: greedy chains along its own answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spec_convert.demo.answers import Answer
from spec_convert.models.contract import Draft


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """``by_position[j]``: the share of chains whose first j+1 tokens are all the verifier's own."""

    by_position: tuple[float, ...]
    chains: int

    @property
    def mean_length(self) -> float:
        """Tokens a verifier pass yields: the accepted ones, and the one that the verifier itself adds."""
        return 1 + sum(self.by_position)


def acceptance(draft: Draft, answers: Iterable[Answer], *, tokens: int = 3) -> Acceptance:
    """What a server counts that decodes ``answers`` with chains of ``tokens`` drafted tokens."""
    counts = torch.tensor([count for answer in answers for count in _along(answer, accepted(draft, answer, tokens))])
    by_position = [float((counts > position).float().mean()) for position in range(tokens)]
    return Acceptance(by_position=tuple(by_position), chains=len(counts))


@torch.inference_mode()
def accepted(draft: Draft, answer: Answer, tokens: int) -> Tensor:
    """For a chain that starts at each row, how many of its tokens are right before the first wrong one. [R]

    Row i embeds x[i+1] beside the verifier's state of token i and guesses x[i+2]; the next step of its chain embeds
    that token beside the draft's own state. All chains run at once: one whose guess was wrong is over, so every chain
    that still counts has guessed the verifier's tokens, and these can be fed to all.
    """
    rows = len(answer.token_ids) - 1 - tokens
    state, attend = answer.states[None, :rows], Chains()
    right = []
    for step in range(tokens):
        given, wanted = (answer.token_ids[None, ahead + step : ahead + step + rows] for ahead in (1, 2))
        positions = torch.arange(step, step + rows)[None]
        logits, state = draft(given, state, positions, fed_back=step > 0, attend=attend)
        right.append(draft.to_target_vocabulary(logits).argmax(dim=-1) == wanted)
    return torch.cat(right).long().cumprod(dim=0).sum(dim=0)


def _along(answer: Answer, counts: Tensor) -> Iterator[int]:
    """The chains that a server starts: the next one after the accepted tokens and the verifier's own."""
    row = answer.start - 1  # its token is the answer's first, which the verifier says without a draft
    while row < len(counts):
        yield int(counts[row])
        row += int(counts[row]) + 1


class Chains:
    """Attention of a chain at every row: the verifier's rows up to it, then the steps of this chain alone."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        rows = query.shape[2]
        if layer in self.seen:
            keys, values = self.seen[layer]
            key, value = torch.cat((keys, key), dim=2), torch.cat((values, value), dim=2)
        self.seen[layer] = key, value
        up_to_it, itself = torch.ones(rows, rows, dtype=torch.bool).tril(), torch.eye(rows, dtype=torch.bool)
        mask = torch.cat((up_to_it, *[itself] * (key.shape[2] // rows - 1)), dim=1)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
