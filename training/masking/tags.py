"""What the verifier says by the `{% generation %}` tags of its chat template, which are taken at their word."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from spec_convert.errors import UsageError
from spec_convert.training.masking.rendering import (
    ANSWERS,
    Messages,
    Said,
    Span,
    chat_template,
    common_end,
    refusals,
    with_answer,
)
from spec_convert.training.masking.unmaskable import Unmaskable

if TYPE_CHECKING:
    from jinja2.nodes import Node, Template
    from jinja2.parser import Parser


class Tags:
    """Characters come from transformers, tokens do not: its mask loses blanks and the last bytes of a character."""

    end: int | None = None  # what ends a turn is for the tags to say

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._template = chat_template(tokenizer)

    def said(self, messages: Messages, cut: Collection[int]) -> Said:
        """The characters within tags. Raises Unmaskable."""
        text, spans = self._tagged(messages)
        answers = _answers(messages)
        if answers and not spans:
            raise Unmaskable("nothing_marked", "the chat template's generation tags mark nothing of the conversation")
        if any(number in cut for number in answers):
            _require_one_each(answers, spans)
            spans = [
                self._without_ending(messages, place, text, span) if number in cut else span
                for place, (number, span) in enumerate(zip(answers, spans, strict=True))
            ]
        return Said(text, spans)

    def _without_ending(self, messages: Messages, place: int, text: str, span: Span) -> Span:
        """Of the answer at ``place`` among the answers: its tag but for what ends it whatever that answer says."""
        answers, inside = _answers(messages), []
        for answer in ANSWERS:
            said, spans = self._tagged(with_answer(messages, answers[place], answer))
            _require_one_each(answers, spans)
            inside.append(said[spans[place].start : spans[place].end])
        ending = common_end(*inside)
        if not text[span.start : span.end].endswith(ending):
            raise Unmaskable("ending_varies", f"the chat template ends message {answers[place] + 1} as no plain answer")
        return Span(span.start, span.end - len(ending), cut=True)

    def _tagged(self, messages: Messages) -> tuple[str, list[Span]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        with refusals():
            rendered: Any = render_jinja_template(
                [[dict(message) for message in messages]],
                chat_template=self._template,
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
            )
        (text,), (marked,) = rendered
        return text, [Span(start, end) for start, end in marked]


def _answers(messages: Messages) -> list[int]:
    return [number for number, message in enumerate(messages) if message["role"] == "assistant"]


def _require_one_each(answers: Sequence[int], spans: Sequence[Span]) -> None:
    if len(answers) != len(spans):
        raise Unmaskable(
            "cut_unplaced", f"{len(answers)} answers have {len(spans)} generation tags: which one was cut?"
        )


def has_tags(template: str) -> bool:
    """Whether generation tags stand in a template, comments aside.

    Raises UsageError for a template that is no template, and for tags whose place transformers misjudges: it counts
    the characters that have come out so far, and what such blocks hold comes out only at their end.
    """
    from jinja2 import TemplateSyntaxError, nodes

    try:
        tree = _parsed(template)
    except TemplateSyntaxError as error:
        raise UsageError(
            f"the chat template cannot be read: line {error.lineno}: {error.message}",
            hint="put the chat_template.jinja of the model's own repository beside its tokenizer.json",
        ) from error
    tags = list(_tags(tree))
    held = (nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock, nodes.For)
    for block in tree.find_all(held):
        if isinstance(block, nodes.For) and not block.recursive:
            continue
        for tag in _tags(block):
            raise UsageError(
                f"line {tag.lineno} of the chat template has a generation tag within a block that comes out as a "
                f"whole (line {block.lineno}): transformers cannot tell where in the text it stands",
                hint="put the tag outside of macros, of {% set %}, {% filter %} and {% call %}, and of recursive loops",
            )
    return bool(tags)


def _parsed(template: str) -> Template:
    from jinja2 import Environment, nodes
    from jinja2.ext import Extension, loopcontrols

    class Generation(Extension):
        def __init__(self, environment: Environment) -> None:
            super().__init__(environment)
            self.tags = {"generation"}

        def parse(self, parser: Parser) -> Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("generation"), [], [], body).set_lineno(line)

    return Environment(extensions=[Generation, loopcontrols]).parse(template)


def _tags(tree: Any) -> Any:
    from jinja2 import nodes

    for block in tree.find_all(nodes.CallBlock):
        if isinstance(block.call.node, nodes.ExtensionAttribute):
            yield block
