"""One row of a data set as a conversation with its answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import dropwhile

from spec_convert.evaluation.conversation import ANSWERS, KEYS, MalformedRow, Said, said_in, text_of
from spec_convert.training.conversations.conversation import REASONING, Conversation, Message

__all__ = ["COLUMNS", "REASONING", "as_conversation"]

FINISH_REASONS = "finish_reasons"
COLUMNS = frozenset((*KEYS, *ANSWERS, "system", FINISH_REASONS))  # all that a row can say anything with
DROPPED = ("tool_calls", "function_call")  # what an answer may hold beside its text, and Message does not


def as_conversation(row: object, where: str) -> Conversation:
    """The messages of one row in any spelling that `spec_convert.evaluation.conversation` knows, answers included.

    An answer may be empty: the verifier may end at once. One before the first question is left out. Raises
    MalformedRow.
    """
    said = said_in(row)
    system = [one for one in said if one.role == "system"]
    rest = [one for one in said if one.role != "system"]
    asked = list(dropwhile(lambda one: one.role == "assistant", rest))
    messages = tuple(map(_message, (*system, *asked)))
    return Conversation(_with_cuts(messages, row), where, began_with_answer=len(asked) < len(rest))


def _with_cuts(messages: tuple[Message, ...], row: object) -> tuple[Message, ...]:
    """As the `finish_reasons` say that `regenerate` writes, one for each answer; other data know nothing of it."""
    if not isinstance(row, dict) or (reasons := row.get(FINISH_REASONS)) is None:
        return messages
    answers = [number for number, message in enumerate(messages) if message.role == "assistant"]
    if not isinstance(reasons, list) or len(reasons) != len(answers):
        raise MalformedRow(
            f"`{FINISH_REASONS}` does not hold one word for each of its {len(answers)} answers", FINISH_REASONS
        )
    cut = {number for number, reason in zip(answers, reasons, strict=True) if reason != "stop"}
    return tuple(replace(message, cut=number in cut) for number, message in enumerate(messages))


def _message(said: Said) -> Message:
    content = _encodable(text_of(said.content, said.where, may_be_empty=said.role == "assistant"), said.where)
    if said.message is None or said.role != "assistant":
        return Message(said.role, content)
    for key in DROPPED:
        if said.message.get(key):
            raise MalformedRow(f"{said.where} has `{key}`, which is not read", key)
    if not (reasoning := said.message.get(REASONING)):
        return Message(said.role, content)
    where = f"the `{REASONING}` of {said.where}"
    return Message(said.role, content, _encodable(text_of(reasoning, where), where))


def _encodable(text: str, where: str) -> str:
    """JSON can spell half of a surrogate pair, which is no text that could be tokenised."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MalformedRow(f"{where} is not valid Unicode: {error.reason}", "not_unicode") from error
    return text
