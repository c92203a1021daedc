"""`measure` answers conversations in the verifier's own template, counts, compares, and refuses what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert.errors import UsageError
from spec_convert.evaluation.answering import Answering
from spec_convert.evaluation.chat import Chat, open_chat
from spec_convert.evaluation.prompt import Prompt
from spec_convert.evaluation.transformers_engine import measure
from spec_convert.servable import Servable, servable

from ..tiny import Tiny

PROMPTS = [Prompt(turns=("t3 t4 t5",)), Prompt(turns=("t9 t8", "t7"), system="t6")]
SETTINGS: dict[str, Any] = {
    "max_tokens": 12, "speculative_tokens": None, "temperature": 0.0, "seed": 0, "alone": True, "device": "cpu",
}  # fmt: skip


@pytest.fixture(params=["eagle", "eagle3", "mlp"])
def drafted(request: pytest.FixtureRequest, with_tokenizer: Callable[..., Path]) -> Servable:
    tiny: Tiny = request.getfixturevalue(request.param)()
    return servable(tiny.convert().output, verifier=with_tokenizer())


@pytest.fixture
def eagle_drafted(eagle: Callable[..., Tiny], verifier: Path) -> Servable:
    return servable(eagle().convert().output, verifier=verifier)


@pytest.fixture
def conversations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[dict[str, str]], list[int]]]:
    """What the verifier was asked: the messages, and the tokens that they became."""
    heard: list[tuple[list[dict[str, str]], list[int]]] = []
    ask = Chat.ask

    def listening(self: Chat, messages: list[dict[str, str]]) -> list[int]:
        token_ids = ask(self, messages)
        heard.append((list(messages), token_ids))
        return token_ids

    monkeypatch.setattr(Chat, "ask", listening)
    return heard


def test_it_counts_answers_drafts_and_tokens(drafted: Servable) -> None:
    found = measure(drafted, PROMPTS, **SETTINGS)
    assert (found.engine, found.draft, found.verifier) == ("transformers", drafted.draft, drafted.verifier.name)
    assert (found.prompts, found.answers, found.speculative_tokens) == (2, 3, drafted.speculative_tokens)
    assert found.with_draft.tokens <= 3 * 12
    assert found.with_draft.tokens == found.verifier_alone.tokens
    # each verified draft yields its accepted tokens and one more, unless the answer ends before
    assert found.with_draft.tokens - 3 <= found.drafts + sum(found.accepted)
    assert all(0 < alpha <= 1 for alpha in found.alpha if alpha is not None)
    assert found.versions.keys() == {"spec-convert", "torch", "transformers"}
    json.dumps(found.to_json(), allow_nan=False)


def test_the_text_is_the_verifiers_own(drafted: Servable) -> None:
    found = measure(drafted, PROMPTS, **SETTINGS | {"speculative_tokens": 2})
    assert found.differences == ()
    assert found.lossless is True
    assert found.speculative_tokens == 2
    assert len(found.accepted) == 2


def test_the_same_request_finds_the_same(drafted: Servable) -> None:
    def counts(**changes: Any) -> tuple[Any, ...]:
        found = measure(drafted, PROMPTS, **SETTINGS | {"alone": False, "temperature": 1.0} | changes)
        return found.drafts, found.accepted, found.alpha, found.with_draft.tokens

    assert counts() == counts()
    assert counts() != counts(seed=1)


def test_a_later_turn_reads_the_answers_before_it(
    eagle: Callable[..., Tiny], with_tokenizer: Any, conversations: Any
) -> None:
    base = with_tokenizer()
    measure(servable(eagle().convert().output, verifier=base), PROMPTS[1:], **SETTINGS)
    (_, (first, _), (second, asked)) = conversations  # the warm-up comes first
    assert first == [{"role": "system", "content": "t6"}, {"role": "user", "content": "t9 t8"}]
    assert second[:2] == first
    assert second[3] == {"role": "user", "content": "t7"}
    answer = second[2]["content"]
    assert second[2]["role"] == "assistant"
    expected = f"t1 system t6 t1 user t9 t8 t1 assistant {answer} t1 user t7 t1 assistant"
    assert asked == open_chat(str(base), revision=None)._tokenizer(expected)["input_ids"]
    assert 0 < len(answer.split()) <= 12


def test_without_a_template_the_verifier_reads_plain_text(
    eagle: Callable[..., Tiny], with_tokenizer: Any, conversations: Any
) -> None:
    base = with_tokenizer(template=None)
    measure(servable(eagle().convert().output, verifier=base), PROMPTS[:1], **SETTINGS)
    assert conversations[-1][1] == [3, 4, 5]


def test_sampled_text_is_not_compared(drafted: Servable) -> None:
    found = measure(drafted, PROMPTS, **SETTINGS | {"temperature": 0.7})
    assert found.differences is None
    assert found.lossless is None
    assert found.verifier_alone is not None


def test_the_verifier_alone_is_run_only_when_asked(drafted: Servable) -> None:
    found = measure(drafted, PROMPTS, **SETTINGS | {"alone": False})
    assert (found.verifier_alone, found.differences, found.speedup) == (None, None, None)


def test_half_precision_is_lossless_too(drafted: Servable) -> None:
    found = measure(drafted, PROMPTS, **SETTINGS | {"dtype": "bfloat16"})
    assert found.lossless is True


def test_the_tokenizers_end_token_ends_an_answer_too(
    eagle: Callable[..., Tiny], with_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[list[int]] = []
    text = Chat.text
    monkeypatch.setattr(Chat, "text", lambda chat, ids: answers.append(ids) or text(chat, ids))
    drafted = servable(eagle().convert().output, verifier=with_tokenizer())
    measure(drafted, PROMPTS[:1], **SETTINGS)
    with_tokenizer(end=answers[0][4])
    measure(drafted, PROMPTS[:1], **SETTINGS)
    assert answers[1] == answers[0][: answers[0].index(answers[0][4]) + 1]
    assert len(answers[1]) < 12


def test_an_answer_ends_with_the_verifiers_context(eagle: Any, with_tokenizer: Any) -> None:
    base = with_tokenizer()
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 14}))
    drafted = servable(eagle().convert().output, verifier=base)
    found = measure(drafted, PROMPTS[:1], **SETTINGS)
    assert found.with_draft.tokens == 14 - 7 - 3  # the prompt, and what may be drafted beyond the end
    with pytest.raises(UsageError, match="7 tokens fills the verifier's context of 14"):
        measure(drafted, PROMPTS[:1], **SETTINGS | {"speculative_tokens": 7})


def test_a_verifier_without_a_tokenizer_is_refused(eagle_drafted: Servable) -> None:
    with pytest.raises(UsageError, match="no tokenizer"):
        measure(eagle_drafted, PROMPTS, **SETTINGS)


def test_a_template_that_refuses_a_prompt_is_a_usage_error(eagle: Any, with_tokenizer: Any) -> None:
    base = with_tokenizer("{{ raise_exception('System role not supported') }}")
    with pytest.raises(UsageError, match="System role not supported"):
        measure(servable(eagle().convert().output, verifier=base), PROMPTS, **SETTINGS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, "answers of 0"),
        ({"speculative_tokens": 0}, "draft 0 tokens"),
        ({"temperature": -1.0}, "temperature -1"),
        ({"dtype": "float8"}, "no dtype 'float8'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(eagle_drafted: Servable, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measure(eagle_drafted, PROMPTS, **SETTINGS | change)


def test_no_prompts_at_all_are_refused(eagle_drafted: Servable) -> None:
    with pytest.raises(UsageError, match="no prompts"):
        measure(eagle_drafted, [], **SETTINGS)


def test_too_little_memory_is_said_in_one_line(drafted: Servable, monkeypatch: pytest.MonkeyPatch) -> None:
    def starve(self: Answering, prompt: Prompt) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nand more words")

    monkeypatch.setattr(Answering, "converse", starve)
    with pytest.raises(UsageError, match="not enough memory: CUDA out of memory") as refused:
        measure(drafted, PROMPTS, **SETTINGS)
    assert "bfloat16" in refused.value.hint


def test_a_prompt_that_cannot_be_answered_is_numbered(drafted: Servable, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Answering, prompt: Prompt) -> None:
        raise UsageError("it is too long", hint="leave it out")

    monkeypatch.setattr(Answering, "converse", refuse)
    with pytest.raises(UsageError, match="prompt 1: it is too long"):
        measure(drafted, PROMPTS, **SETTINGS)
