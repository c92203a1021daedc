"""One conversation: what is asked, what the verifier answers turn after turn, and what becomes a row of the output."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.evaluation.prompt import Prompt
from spec_convert.evaluation.settings import COLDEST
from spec_convert.training.conversations.conversation import REASONING

Messages = list[dict[str, str]]  # role and content


@dataclass(frozen=True, slots=True)
class Asked:
    """``place``: counted from 0 over all rows of the sources. ``where``: file and line, for people."""

    place: int
    where: str
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Answer:
    """``finish_reason``: `stop` when the verifier ended it itself, `length` when it was cut; servers know others.

    ``reasoning``: what the server returned beside the content, which is no part of the later turns' context.
    """

    content: str
    finish_reason: str
    tokens: int
    reasoning: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """``answers`` to the first turns; to all of them when nothing was ``refused``."""

    place: int
    answers: tuple[Answer, ...]
    refused: str | None = None


class Refused(Exception):
    """The turn is not answered, now or later; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """``top_p`` None: as the model's generation config says. Temperature 0 is greedy."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UsageError for what no engine can do."""
        if not self.temperature:
            if self.top_p is not None:
                raise UsageError("greedy answers have no --top-p", hint="sample with it: --temperature 1")
        elif not (isfinite(self.temperature) and self.temperature >= COLDEST):
            raise UsageError(
                f"cannot sample at temperature {self.temperature}", hint=f"0 is greedy, {COLDEST} the least above"
            )

    def seed_of(self, place: int, turn: int) -> int:
        """Of one answer, whatever is asked before it or at the same time; 31 bits, which every server takes."""
        digest = hashlib.sha256(f"{self.seed} {place} {turn}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def to_json(self) -> dict[str, Any]:
        """What the answers depend on."""
        return asdict(self) | {"seed": self.seed if self.temperature else None}


def converse(asked: Asked, ask: Callable[[Messages, int], Answer]) -> Outcome:
    """Turn after turn. ``ask`` answers the messages of a turn, counted from 0, or raises Refused: there it ends."""
    answers: list[Answer] = []
    for turn in range(len(asked.prompt.turns)):
        try:
            answers.append(ask(messages(asked.prompt, answers), turn))
        except Refused as refused:
            return Outcome(asked.place, tuple(answers), str(refused))
    return Outcome(asked.place, tuple(answers))


def messages(prompt: Prompt, answers: Sequence[Answer]) -> Messages:
    """The conversation up to the first question without an answer; all of it when there is none."""
    said = [{"role": "system", "content": prompt.system}] if prompt.system else []
    for question, answer in zip(prompt.turns[: len(answers)], answers, strict=True):
        said += [{"role": "user", "content": question}, {"role": "assistant", "content": answer.content}]
    return said + [{"role": "user", "content": turn} for turn in prompt.turns[len(answers) :][:1]]


def row(asked: Asked, outcome: Outcome) -> dict[str, Any]:
    """As `prepare` reads it, with what is needed to trust it. It ends with the last answer."""
    answers = outcome.answers
    said = messages(Prompt(turns=asked.prompt.turns[: len(answers)], system=asked.prompt.system), answers)
    answered = [message for message in said if message["role"] == "assistant"]
    for message, answer in zip(answered, answers, strict=True):
        if answer.reasoning is not None:
            message[REASONING] = answer.reasoning
    made: dict[str, Any] = {"conversations": said, "finish_reasons": [answer.finish_reason for answer in answers]}
    if outcome.refused is not None:
        made["unanswered"] = {"turn": len(answers) + 1, "reason": outcome.refused}
    return made | {"where": asked.where}
