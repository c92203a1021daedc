"""What the verifier says by rendering the beginnings of a conversation: the prompt of each answer, and its turn."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from spec_convert.errors import UsageError
from spec_convert.training.conversations.conversation import REASONING
from spec_convert.training.masking.rendering import (
    ANSWERS,
    Messages,
    Said,
    Span,
    common_end,
    common_start,
    render,
    with_answer,
)
from spec_convert.training.masking.unmaskable import Unmaskable

QUESTION = {"role": "user", "content": "?"}


class Ending(NamedTuple):
    """``after``: what the template writes after the last answer; ``own``: how much of it the model generates.

    ``token``: the special token that ends the turn, None where the template has none.
    """

    after: str
    own: int
    token: int | None


class Prefixes:
    """An answer begins where its prompt ends, and ends with the first special token that the template puts after it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        try:
            self._ending = ending(tokenizer)
        except Unmaskable as refused:
            raise UsageError(
                f"the plainest conversation, a question and its answer, shows nothing of the verifier's: {refused}",
                hint="the chat template must render a user's message and an answer without anything else",
            ) from refused
        self.end = self._ending.token

    def said(self, messages: Messages, cut: Collection[int]) -> Said:
        """Of an answer that was cut nothing of the ending was said. Raises Unmaskable."""
        text = render(self._tokenizer, messages, prompt=False)
        spans: list[Span] = []
        last, rewritten_answers = 0, 0
        for number, message in enumerate(messages):
            if message["role"] == "assistant":
                start, end = self._start(text, messages[:number]), self._end(text, messages, number)
                content = end - self._ending.own
                if start > content or start < last:
                    raise Unmaskable("history_rewritten", f"the chat template leaves out message {number + 1}")
                last = end
                if self._is_as_said(text, start, end, messages[: number + 1]):
                    spans.append(Span(start, content, cut=True) if number in cut else Span(start, end))
                else:
                    rewritten_answers += 1
        if rewritten_answers and not spans:
            raise Unmaskable("history_rewritten", "the chat template repeats no answer as it was said")
        return Said(text, spans, rewritten_answers)

    def _start(self, text: str, before: Messages) -> int:
        if not before:
            raise Unmaskable("answer_first", "the conversation begins with an answer, which has no prompt")
        prompt = render(self._tokenizer, before, prompt=True)
        if text.startswith(prompt):
            return len(prompt)
        if text.startswith(render(self._tokenizer, before, prompt=False)):
            raise Unmaskable(
                "prompt_not_repeated",
                f"the chat template asks for message {len(before) + 1} with a prompt that it does not write before it",
            )
        raise rewritten(len(before))

    def _end(self, text: str, messages: Messages, number: int) -> int:
        """Where answer ``number`` ends: before what is the same whatever that answer says."""
        one, other = (
            render(self._tokenizer, with_answer(messages, number, answer), prompt=False) for answer in ANSWERS
        )
        after = common_end(one, other)
        ending = self._ending.after[: self._ending.own]
        if not (after.startswith(ending) and text.endswith(after)):
            raise Unmaskable(
                "ending_varies", f"the chat template does not end message {number + 1} as it ends a plain answer"
            )
        return len(text) - len(after) + len(ending)

    def _is_as_said(self, text: str, start: int, end: int, turns: Messages) -> bool:
        """Whether the answer that ends ``turns`` stands in the whole text as the verifier said it.

        Templates for models that think drop the thoughts of earlier answers: what is left of such an answer is not
        what the verifier says after that prompt. A thought that was empty may be dropped.
        """
        span, said, answer = text[start:end], render(self._tokenizer, turns, prompt=False), turns[-1]
        return said.startswith(span, start) or (not answer.get(REASONING) and answer["content"].strip() in span)


def rewritten(number: int) -> Unmaskable:
    return Unmaskable(
        "history_rewritten",
        f"the chat template writes the first {number} messages otherwise once the conversation goes on",
    )


def ending(tokenizer: Any) -> Ending:
    """What follows an answer, seen on two that differ. Raises Unmaskable; UsageError when no prompt ends before it."""
    one, other = (
        render(tokenizer, [QUESTION, {"role": "assistant", "content": answer}], prompt=False) for answer in ANSWERS
    )
    check_prompt(tokenizer, before=common_start(one, other))
    after = common_end(one, other)
    known = set(tokenizer.all_special_ids)
    ends = [
        (after.index(word.content), -len(word.content), number)
        for number, word in tokenizer.added_tokens_decoder.items()
        if (word.special or number in known) and word.content in after
    ]
    if not ends:
        return Ending(after, 0, None)
    place, length, token = min(ends)
    return Ending(after, place - length, token)


def check_prompt(tokenizer: Any, *, before: str) -> None:
    """Raises UsageError when the template has no prompt for answers and yet writes words of its own before them.

    A server would have the verifier say these words. Whether it does is not the template's to know.
    """
    prompt, asked = (render(tokenizer, [QUESTION], prompt=prompt) for prompt in (True, False))
    if prompt == asked and before.startswith(prompt) and (words := before[len(prompt) :].strip()):
        raise UsageError(
            f"the chat template writes {words!r} before an answer, and takes no notice of add_generation_prompt: "
            "it cannot be told whether the verifier says that itself",
            hint="give the verifier's folder a chat_template.jinja that knows add_generation_prompt",
        )
