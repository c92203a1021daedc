"""Speculative decoding: the draft proposes a chain of tokens, the verifier checks them in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from spec_convert.evaluation.acceptance import Proposal, Strategy
from spec_convert.evaluation.drafting import Drafter
from spec_convert.evaluation.verifier_model import VerifierModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Where an answer ends: after one of these tokens, or when it is this long."""

    end_ids: frozenset[int]
    max_tokens: int

    def cut(self, token_ids: Sequence[int]) -> list[int]:
        """The answer without what comes after its end."""
        ends = (index + 1 for index, token in enumerate(token_ids) if token in self.end_ids)
        return list(token_ids[: min(next(ends, self.max_tokens), self.max_tokens)])

    def reached(self, token_ids: Sequence[int]) -> bool:
        return len(token_ids) >= self.max_tokens or token_ids[-1] in self.end_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One verifier pass. ``proposal`` and ``logits`` are None in the first, which reads the prompt."""

    token_ids: list[int]  # what it added to the answer: nothing after the end of it
    accepted: int = 0  # of the proposal, also of what lies after the end of the answer, as vLLM counts
    proposal: Proposal | None = None
    logits: Tensor | None = None  # [K+1, V], the verifier's


def speculate(
    verifier: VerifierModel, drafter: Drafter, prompt: Sequence[int], *, strategy: Strategy, stop: Stop
) -> Iterator[Step]:
    """Answer ``prompt``, one verifier pass a step. With greedy decoding the text is the verifier's own."""
    verifier.restart()
    drafter.restart()
    seen = verifier.read(prompt, keep=1)
    answer = [strategy.choose(seen.logits[-1])]
    yield Step(token_ids=stop.cut(answer))
    following, states = [*prompt[1:], *answer], seen.states
    while not stop.reached(answer):
        proposal = drafter.propose(following, states, strategy)
        drafted = proposal.token_ids
        seen = verifier.read([answer[-1], *drafted], keep=len(drafted) + 1)
        accepted, token = strategy.verify(proposal, seen.logits)
        verifier.take_back(len(drafted) - accepted)
        following, states = [*drafted[:accepted], token], seen.states[: accepted + 1]
        before = len(answer)
        answer = stop.cut([*answer, *following])
        yield Step(token_ids=answer[before:], accepted=accepted, proposal=proposal, logits=seen.logits)
