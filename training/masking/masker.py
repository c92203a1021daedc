"""Which tokens of a conversation the verifier itself says."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from spec_convert.training.masking.prefixes import Prefixes
from spec_convert.training.masking.rendering import Messages, chat_template
from spec_convert.training.masking.row import Row, words_set_apart
from spec_convert.training.masking.tags import Tags, has_tags
from spec_convert.training.masking.unmaskable import Unmaskable

__all__ = ["Masked", "Masker", "Unmaskable"]


@dataclass(frozen=True, slots=True)
class Masked:
    """The T tokens of a conversation, and which of them the verifier says: its answers, each with its end token.

    ``rewritten_answers``: how many are not learned, since the template repeats less of them than was said.
    """

    input_ids: list[int]
    loss_mask: list[bool]
    rewritten_answers: int = 0


class Masker:
    """Masks by the tokenizer's own chat template: by its generation tags, else by the prompts and turns it renders.

    An answer is exactly what the verifier adds to the tokens of its prompt until it ends its turn. Where the template
    or the tokenizer leaves that open the conversation is Unmaskable, so a mask is never a guess. Raises UsageError
    for a tokenizer without a chat template, and for a template that leaves it open in every conversation.
    """

    how: Literal["generation tags", "prefixes"]

    def __init__(self, tokenizer: Any) -> None:
        tagged = has_tags(chat_template(tokenizer))
        self.how = "generation tags" if tagged else "prefixes"
        self._way = Tags(tokenizer) if tagged else Prefixes(tokenizer)
        self._tokenizer = tokenizer
        self._apart = words_set_apart(tokenizer)

    def mask(self, messages: Messages, *, cut: Collection[int] = ()) -> Masked:
        """All answers of one conversation, in one row. Raises Unmaskable.

        ``cut``: the messages, counted from 0, that the verifier did not end itself: what ends them is not learned.

        Words of the template in somebody else's text change nothing. In an answer they are special tokens like any,
        but with the one that ends a turn the verifier would have stopped there: such an answer is Unmaskable.
        """
        if not messages:
            raise Unmaskable("empty", "the conversation has no messages")
        text, spans, rewritten_answers = self._way.said(messages, cut)
        row = Row(self._tokenizer, text, self._apart)
        loss_mask = [False] * len(row.ids)
        for span in spans:
            start, end = row.tokens_before(span.start), row.tokens_before(span.end)
            if self._way.end is not None and not span.cut:
                check_end(row.ids[start:end], self._way.end)
            loss_mask[start:end] = [True] * (end - start)
        return Masked(row.ids, loss_mask, rewritten_answers)


def check_end(answer: list[int], token: int) -> None:
    """Raises Unmaskable unless the token ends the answer, and only ends it."""
    if answer[-1:] != [token]:
        raise Unmaskable("boundary_inside_token", "the end of an answer is tokenised together with its last words")
    if token in answer[:-1]:
        raise Unmaskable("end_inside_answer", "an answer goes on after the token that ends a turn")
