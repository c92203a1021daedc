"""Answers conversations with the draft's help and, to compare, by the verifier alone; keeps counts and clocks."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch

from spec_convert.errors import UsageError
from spec_convert.evaluation.acceptance import Greedy, Sampled, Strategy
from spec_convert.evaluation.chat import Chat, Message
from spec_convert.evaluation.counting import Stopwatch, Tally
from spec_convert.evaluation.drafting import DraftModel, NoDrafter
from spec_convert.evaluation.lossless import first_difference
from spec_convert.evaluation.measured import Difference
from spec_convert.evaluation.prompt import Prompt
from spec_convert.evaluation.speculation import Stop, speculate
from spec_convert.evaluation.verifier_model import VerifierModel

WARM_UP = 8  # tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How answers are decoded."""

    max_tokens: int  # of one answer
    temperature: float  # 0: greedy
    seed: int

    def strategy(self, device: torch.device) -> Strategy:
        if not self.temperature:
            return Greedy()
        return Sampled(self.temperature, torch.Generator(device).manual_seed(self.seed))


class Answering:
    """Answers prompt after prompt. The two that decode have a random generator each, seeded once for the whole run."""

    def __init__(
        self, chat: Chat, verifier: VerifierModel, draft: DraftModel, decoding: Decoding, *, alone: bool
    ) -> None:
        self._chat, self._verifier, self._draft, self._decoding = chat, verifier, draft, decoding
        self._strategy, self._strategy_alone = decoding.strategy(verifier.device), decoding.strategy(verifier.device)
        self.tally = Tally(draft.tokens, temperature=decoding.temperature)
        self.with_draft = Stopwatch()
        self.alone = Stopwatch() if alone else None
        self.answers = 0
        self.differences: list[Difference] | None = [] if alone and not decoding.temperature else None

    def warm_up(self, prompt: Prompt) -> None:
        """Decode a little that does not count: the first run of a kernel is slow."""
        asked = self._chat.ask([*_system(prompt), _user(prompt.turns[0])])
        for drafter in (self._draft, NoDrafter()):
            strategy = self._decoding.strategy(self._verifier.device)
            deque(
                speculate(self._verifier, drafter, asked, strategy=strategy, stop=self._stop(asked, WARM_UP)), maxlen=0
            )

    def converse(self, prompt: Prompt) -> None:
        """Answer every turn; the answer with the draft belongs to the context of the next turn.

        The verifier alone answers the same conversation, not one of its own: after a tie in one turn all later ones
        would differ for that reason only.
        """
        messages = _system(prompt)
        for turn in prompt.turns:
            messages.append(_user(turn))
            answer = self.answer(self._chat.ask(messages))
            messages.append({"role": "assistant", "content": self._chat.text(answer)})

    def answer(self, asked: list[int]) -> list[int]:
        """The tokens of the answer with the draft to a prompt of tokens, which both decode."""
        stop = self._stop(asked, self._decoding.max_tokens)
        answer: list[int] = []
        for step in self.with_draft.timed(
            speculate(self._verifier, self._draft, asked, strategy=self._strategy, stop=stop)
        ):
            self.tally.see(step)
            answer += step.token_ids
        if self.alone:
            steps = speculate(self._verifier, NoDrafter(), asked, strategy=self._strategy_alone, stop=stop)
            self._compare(asked, answer, [token for step in self.alone.timed(steps) for token in step.token_ids])
        self.answers += 1
        return answer

    def _compare(self, asked: list[int], answer: list[int], own: list[int]) -> None:
        if self.differences is None:
            return
        if found := first_difference(self._verifier, asked, answer, own, number=self.answers):
            self.differences.append(found)

    def _stop(self, asked: list[int], max_tokens: int) -> Stop:
        """An answer ends at the latest where the verifier's context does, with room for what is drafted beyond it."""
        room = (self._verifier.longest or math.inf) - len(asked) - self._draft.tokens
        if room <= 0:
            raise UsageError(
                f"a prompt of {len(asked)} tokens fills the verifier's context of {self._verifier.longest}",
                hint="shorten it, or leave it out of the prompts",
            )
        return Stop(end_ids=self._verifier.end_ids | self._chat.end_ids, max_tokens=int(min(max_tokens, room)))


def _system(prompt: Prompt) -> list[Message]:
    return [] if prompt.system is None else [{"role": "system", "content": prompt.system}]


def _user(turn: str) -> Message:
    return {"role": "user", "content": turn}
