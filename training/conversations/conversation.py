"""One conversation, in the one form that everything after the reading knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """As chat templates and OpenAI's protocol want it."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Conversation:
    """``where``: the file and line, or data set and row, for what there is to say about it."""

    messages: tuple[Message, ...]
    where: str

    @property
    def answered(self) -> bool:
        return any(message.role == "assistant" for message in self.messages)
