"""One row of a file as what was said by whom, in the spellings that data sets use; and what of it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spec_convert.evaluation.prompt import Prompt

Role = Literal["system", "user", "assistant"]

# The first of these keys that a row has is its prompt: conversations are said before their own first question.
KEYS = ("conversations", "messages", "turns", "prompt", "question", "text")
ANSWERED = ("prompt", "question")  # those beside which an answer may stand, under the first of ANSWERS that there is
ANSWERS = ("response", "completion", "answer", "output")
ROLES: Mapping[str, Role] = {
    "user": "user", "human": "user", "system": "system",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant",
}  # fmt: skip
EXPECTED = (
    'a row is `{"conversations": [{"role": "user", "content": "…"}]}` (or from/value), the same under '
    '`messages`, MT-bench\'s `{"turns": ["…", "…"]}`, or one question under `prompt`, `question` or `text`'
)


class MalformedRow(Exception):
    """A row that is no conversation; says what is wrong with it, its hint what was expected.

    ``reason`` is the kind of mistake as one word, to be counted.
    """

    def __init__(self, message: str, reason: str, hint: str = EXPECTED) -> None:
        super().__init__(message)
        self.reason, self.hint = reason, hint


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a row: ``where`` in it, and the object that it came from, if it was one."""

    role: Role
    content: object
    where: str
    message: Mapping[str, object] | None = None


def as_prompt(row: object) -> Prompt:
    """The questions of one row, and its system prompt; answers are left out, unread. Raises MalformedRow."""
    said = said_in(row)
    system = next((text_of(one.content, one.where) for one in said if one.role == "system"), None)
    turns = tuple(text_of(one.content, one.where) for one in said if one.role == "user")
    return Prompt(turns=turns, system=system)


def said_in(row: object) -> list[Said]:
    """What one row says, in order, in any spelling: at least one user turn, a system prompt only at the start.

    Contents are as they stand: `text_of` reads them. An empty system prompt is none. A row that could not even be read
    comes as the MalformedRow that says why. Raises MalformedRow.
    """
    if isinstance(row, MalformedRow):
        raise row
    if isinstance(row, str):
        return [Said("user", row, "the prompt")]
    if not isinstance(row, dict):
        raise MalformedRow(f"a prompt is an object or a text, not {_kind(row)}", "not_an_object")
    key = next((key for key in KEYS if row.get(key) is not None), None)
    if key is None:
        keys = ", ".join(sorted(map(str, row))) or "(none)"
        raise MalformedRow(f"none of the keys {keys} holds a prompt", "unknown_keys")
    said = list(_under(key, row[key]))
    if row.get("system") and said[0].role != "system":
        said.insert(0, Said("system", row["system"], "`system`"))
    if key in ANSWERED and (answer := next((key for key in ANSWERS if row.get(key) is not None), None)):
        said.append(Said("assistant", row[answer], f"`{answer}`"))
    return said


def text_of(content: object, where: str, *, may_be_empty: bool = False) -> str:
    """A message's text, which may be spelled as a list of text parts. Raises MalformedRow."""
    if isinstance(content, list) and all(map(_is_text_part, content)):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise MalformedRow(f"{where} is {_kind(content)}, not text", "not_text")
    if not (may_be_empty or content.strip()):
        raise MalformedRow(f"{where} is empty", "empty_message")
    return content


def _is_text_part(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _under(key: str, said: Any) -> Iterator[Said]:
    if isinstance(said, str):
        yield Said("user", said, f"`{key}`")
    elif not isinstance(said, list) or not said:
        raise MalformedRow(f"`{key}` is {_kind(said)}", "no_messages")
    elif isinstance(said[0], dict):
        yield from _conversation(said)
    else:
        yield from (Said("user", turn, f"turn {number} of `{key}`") for number, turn in enumerate(said, 1))


def _conversation(messages: Sequence[object]) -> list[Said]:
    said = [_message(message, f"message {number}") for number, message in enumerate(messages, 1)]
    for one in said[1:]:
        if one.role == "system":
            message = f"{one.where} is a system prompt, which only the first message can be"
            raise MalformedRow(message, "late_system_prompt")
    if said[0].role == "system" and not said[0].content:
        del said[0]
    if not any(one.role == "user" for one in said):
        raise MalformedRow("the conversation has no user turn", "no_user_turn")
    return said


def _message(message: object, where: str) -> Said:
    if not isinstance(message, dict):
        raise MalformedRow(f"{where} is {_kind(message)}, not an object with role and content", "not_a_message")
    for role, content in (("role", "content"), ("from", "value")):
        if message.get(role) is not None and content in message:
            known = ROLES.get(message[role]) if isinstance(message[role], str) else None
            if known is None:
                hint = f"known are {', '.join(ROLES)}"
                raise MalformedRow(f"{where} is said by {message[role]!r}", "unknown_role", hint)
            return Said(known, message[content], where, message)
    raise MalformedRow(f"{where} has neither role and content nor from and value", "not_a_message")


def _kind(value: Any) -> str:
    if isinstance(value, (list, dict, str)) and not value:
        return f"an empty {'text' if isinstance(value, str) else 'list' if isinstance(value, list) else 'object'}"
    names = {list: "a list", dict: "an object", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
