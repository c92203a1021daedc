"""Drafters and verifiers whose behaviour is known beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from spec_convert.evaluation.acceptance import Proposal, Strategy
from spec_convert.evaluation.verifier_model import Seen


class Scripted:
    """Knows the whole text; says its next tokens, each shifted by what ``wrong`` says of its place in the chain."""

    def __init__(self, text: Sequence[int], vocabulary: int, wrong: Sequence[int]) -> None:
        self.text, self.vocabulary, self.wrong = [*text, *[0] * len(wrong)], vocabulary, wrong
        self.restart()

    def restart(self) -> None:
        self.read = 0

    def propose(self, following: list[int], states: Tensor, strategy: Strategy) -> Proposal:
        assert len(states) == len(following)
        self.read += len(following)
        coming = self.text[self.read + 1 : self.read + 1 + len(self.wrong)]
        token_ids = [(token + shift) % self.vocabulary for token, shift in zip(coming, self.wrong, strict=True)]
        return Proposal(token_ids, F.one_hot(torch.tensor(token_ids), self.vocabulary).float())


class Forced:
    """A rule that accepts as many tokens as it was told, one number a verification, whatever the verifier says."""

    def __init__(self, accepted: Sequence[int]) -> None:
        self.accepted = list(accepted)
        self.seen: list[Tensor] = []

    def choose(self, logits: Tensor) -> int:
        return int(logits.argmax())

    def verify(self, proposal: Proposal, logits: Tensor) -> tuple[int, int]:
        self.seen.append(logits)
        return self.accepted.pop(0), int(logits[0].argmin())


class Table:
    """A verifier or, with ``tokens``, a drafter whose next token depends on the last one only."""

    def __init__(self, logits: Tensor, tokens: int = 0) -> None:
        self.logits, self.tokens = logits, tokens

    def restart(self) -> None:
        pass

    def take_back(self, tokens: int) -> None:
        pass

    def read(self, token_ids: Sequence[int], *, keep: int) -> Seen:
        return Seen(self.logits[list(token_ids[-keep:])], torch.empty(len(token_ids), 0))

    def propose(self, following: list[int], states: Tensor, strategy: Strategy) -> Proposal:
        token_ids, rows = [following[-1]], []
        for _ in range(self.tokens):
            rows.append(self.logits[token_ids[-1]])
            token_ids.append(strategy.choose(rows[-1]))
        return Proposal(token_ids[1:], torch.stack(rows))
