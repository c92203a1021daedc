"""Conversations as the verifier reads them: its own chat template, or plain text when it has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.narration import say

Message = dict[str, str]  # role and content


class Chat:
    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        if not tokenizer.chat_template:
            say("The verifier has no chat template: prompts are given to it as plain text")

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokenizer's own end-of-sequence token, which servers heed beside those of the generation config."""
        end = self._tokenizer.eos_token_id
        return frozenset() if end is None else frozenset([end])

    def ask(self, messages: Sequence[Message]) -> list[int]:
        """The conversation so far, up to where the assistant begins to speak."""
        token_ids: list[int] = self._templated(messages) if self._tokenizer.chat_template else self._plain(messages)
        if not token_ids:
            raise UsageError("a prompt is empty", hint="without a chat template each prompt must hold some text")
        return token_ids

    def text(self, token_ids: Sequence[int]) -> str:
        decoded: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return decoded

    def _templated(self, messages: Sequence[Message]) -> Any:
        from jinja2 import TemplateError

        try:
            made = self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
        except TemplateError as error:
            raise UsageError(
                f"the verifier's chat template refuses a prompt: {error}",
                hint="some templates take no system message; the prompt file can leave it out",
            ) from error
        return made["input_ids"]

    def _plain(self, messages: Sequence[Message]) -> Any:
        return self._tokenizer("\n".join(message["content"] for message in messages))["input_ids"]


def open_chat(name: str, *, revision: str | None) -> Chat:
    """The tokenizer of the verifier in a folder or on the Hub. Raises UsageError when it has none."""
    return Chat(load_tokenizer(name, revision=revision))


def load_tokenizer(name: str, *, revision: str | None) -> Any:
    """The tokenizer of transformers for the verifier in a folder or on the Hub. Raises UsageError when it has none."""
    from transformers import AutoTokenizer

    try:
        # Left unsaid, transformers would ask on stdin whether to run a tokenizer's own code.
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:  # what a damaged file raises is anything
        raise UsageError(
            f"{name} has no tokenizer that transformers can load: {' '.join(str(error).split())}",
            hint="the verifier's folder must hold its tokenizer (tokenizer.json)",
        ) from error
