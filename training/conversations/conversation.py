"""One conversation, in the one form that everything after the reading knows."""

from __future__ import annotations

from dataclasses import dataclass

from spec_convert.evaluation.conversation import Role

REASONING = "reasoning_content"  # as vLLM and chat templates call what was thought before an answer


@dataclass(frozen=True, slots=True)
class Message:
    """``reasoning``: what a verifier that thinks thought before it said ``content``.

    ``cut``: it was stopped there, at a largest number of tokens, and did not end the answer itself.
    """

    role: Role
    content: str
    reasoning: str | None = None
    cut: bool = False

    def as_dict(self) -> dict[str, str]:
        """As chat templates and OpenAI's protocol want it."""
        said = {"role": self.role, "content": self.content}
        return said if self.reasoning is None else said | {REASONING: self.reasoning}


@dataclass(frozen=True, slots=True)
class Conversation:
    """``where``: the file and line, or data set and row, for what there is to say about it.

    ``began_with_answer``: to a question that the row does not hold; that answer is left out here.
    """

    messages: tuple[Message, ...]
    where: str
    began_with_answer: bool = False

    @property
    def answered(self) -> bool:
        return any(message.role == "assistant" for message in self.messages)
