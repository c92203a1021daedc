"""Conversations as text, by the tokenizer's own chat template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from spec_convert.errors import UsageError
from spec_convert.training.masking.unmaskable import Unmaskable

Messages = Sequence[Mapping[str, str]]
ANSWERS = ("yes", "no")  # unlike at both ends: what a template writes around both is its own


class Span(NamedTuple):
    """An answer's first character, and the one after its last. ``cut``: the verifier did not end it itself."""

    start: int
    end: int
    cut: bool = False


class Said(NamedTuple):
    """A conversation's ``text``, and its answers in it, but for those that the template rewrites later."""

    text: str
    spans: list[Span]
    rewritten_answers: int = 0


def chat_template(tokenizer: Any) -> str:
    """The template in use. Raises UsageError when there is none, or none of several is the default."""
    try:
        template: str = tokenizer.get_chat_template()
    except (AttributeError, ValueError) as error:
        raise UsageError(
            f"the tokenizer of {tokenizer.name_or_path or 'the verifier'} has no chat template to use",
            hint="put the chat_template.jinja of the model's own repository beside its tokenizer.json",
        ) from error
    return template


def render(tokenizer: Any, messages: Messages, *, prompt: bool) -> str:
    """The text of a conversation; with ``prompt`` up to where the verifier would speak. Raises Unmaskable."""
    with refusals():
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=prompt
        )
    return text


@contextmanager
def refusals() -> Iterator[None]:
    """What a template raises is a reason why a conversation has no mask."""
    from jinja2 import TemplateError

    try:
        yield
    except (TemplateError, TypeError) as error:
        words = " ".join(str(error).split())
        raise Unmaskable("template_refuses", f"the chat template refuses the conversation: {words}") from error


def common_start(one: str, other: str) -> str:
    """What two texts have in common before they part."""
    differs = (place for place, (left, right) in enumerate(zip(one, other, strict=False)) if left != right)
    return one[: next(differs, min(len(one), len(other)))]


def common_end(one: str, other: str) -> str:
    return common_start(one[::-1], other[::-1])[::-1]


def with_answer(messages: Messages, number: int, answer: str) -> Messages:
    """The conversation as if message ``number`` had said something else."""
    return [*messages[:number], {**messages[number], "content": answer}, *messages[number + 1 :]]
