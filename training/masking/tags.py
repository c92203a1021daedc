"""What the verifier says by the `{% generation %}` tags of its chat template, which are taken at their word."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from spec_convert.errors import UsageError
from spec_convert.training.masking.rendering import Messages, Said, Span, chat_template, refusals
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
        from transformers.utils.chat_template_utils import render_jinja_template

        with refusals():
            rendered: Any = render_jinja_template(
                [[dict(message) for message in messages]],
                chat_template=self._template,
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
            )
        (text,), (marked,) = rendered
        if not marked and any(message["role"] == "assistant" for message in messages):
            raise Unmaskable("nothing_marked", "the chat template's generation tags mark nothing of the conversation")
        cuts = _cuts(messages, cut, len(marked))
        return Said(text, [Span(start, end, is_cut) for (start, end), is_cut in zip(marked, cuts, strict=True)])


def _cuts(messages: Messages, cut: Collection[int], spans: int) -> list[bool]:
    """Which spans are answers that were cut."""
    answers = [number in cut for number, message in enumerate(messages) if message["role"] == "assistant"]
    if not any(answers):
        return [False] * spans
    if len(answers) != spans:
        raise Unmaskable("cut_unplaced", f"{len(answers)} answers have {spans} generation tags: which one was cut?")
    return answers


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
