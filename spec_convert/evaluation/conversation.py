"""One row of a prompts file as a prompt, in the spellings that datasets use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spec_convert.evaluation.prompt import Prompt

# The first of these keys that a row has is its prompt: conversations are said before their own first question.
KEYS = ("conversations", "messages", "turns", "prompt", "question", "text")
ROLES = {
    "user": "user", "human": "user", "system": "system",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant",
}  # fmt: skip
EXPECTED = (
    'a row is `{"conversations": [{"role": "user", "content": "…"}]}` (or from/value), the same under '
    '`messages`, MT-bench\'s `{"turns": ["…", "…"]}`, or one question under `prompt`, `question` or `text`'
)


class MalformedPrompt(Exception):
    """A row that is no prompt; says what is wrong with it, its hint what was expected."""

    def __init__(self, message: str, hint: str = EXPECTED) -> None:
        super().__init__(message)
        self.hint = hint


def as_prompt(row: object) -> Prompt:
    """The questions of one row, and its system prompt. Raises MalformedPrompt."""
    if isinstance(row, str):
        return Prompt(turns=(_text(row, "the prompt"),))
    if not isinstance(row, dict):
        raise MalformedPrompt(f"a prompt is an object or a text, not {_kind(row)}")
    key = next((key for key in KEYS if row.get(key) is not None), None)
    if key is None:
        raise MalformedPrompt(f"none of the keys {', '.join(sorted(map(str, row))) or '(none)'} holds a prompt")
    said = row[key]
    if isinstance(said, str):
        prompt = Prompt(turns=(_text(said, f"`{key}`"),))
    elif not isinstance(said, list) or not said:
        raise MalformedPrompt(f"`{key}` is {_kind(said)}")
    elif isinstance(said[0], dict):
        prompt = _conversation(said)
    else:
        prompt = Prompt(turns=tuple(_text(turn, f"turn {number} of `{key}`") for number, turn in enumerate(said, 1)))
    system = row.get("system")
    if system and prompt.system is None:
        return Prompt(turns=prompt.turns, system=_text(system, "`system`"))
    return prompt


def _conversation(messages: Sequence[object]) -> Prompt:
    """User turns and a system prompt at the start. What an assistant said is left out: it is to be written anew."""
    turns, system = [], None
    for number, message in enumerate(messages, 1):
        where = f"message {number}"
        role, content = _message(message, where)
        if role == "user":
            turns.append(_text(content, where))
        elif role == "system":
            if number > 1:
                raise MalformedPrompt(f"{where} is a system prompt, which only the first message can be")
            system = _text(content, where) if content else None
    if not turns:
        raise MalformedPrompt("the conversation has no user turn")
    return Prompt(turns=tuple(turns), system=system)


def _message(message: object, where: str) -> tuple[str, object]:
    if not isinstance(message, dict):
        raise MalformedPrompt(f"{where} is {_kind(message)}, not an object with role and content")
    for role, content in (("role", "content"), ("from", "value")):
        if role in message and content in message:
            known = ROLES.get(message[role]) if isinstance(message[role], str) else None
            if known is None:
                raise MalformedPrompt(f"{where} is said by {message[role]!r}", hint=f"known are {', '.join(ROLES)}")
            return known, message[content]
    raise MalformedPrompt(f"{where} has neither role and content nor from and value")


def _text(said: object, where: str) -> str:
    if isinstance(said, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in said):
        said = "".join(str(part.get("text", "")) for part in said)
    if not isinstance(said, str):
        raise MalformedPrompt(f"{where} is {_kind(said)}, not text")
    if not said.strip():
        raise MalformedPrompt(f"{where} is empty")
    return said


def _kind(value: Any) -> str:
    if isinstance(value, (list, dict, str)) and not value:
        return f"an empty {'text' if isinstance(value, str) else 'list' if isinstance(value, list) else 'object'}"
    names = {list: "a list", dict: "an object", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
