"""A row in any spelling is the same conversation; what is none says why, and where."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spec_convert.errors import UsageError
from spec_convert.evaluation.conversation import MalformedRow
from spec_convert.evaluation.rows import HubRows, hub_dataset, read_rows
from spec_convert.training.conversations import sources
from spec_convert.training.conversations.conversation import Conversation, Message
from spec_convert.training.conversations.presets import PRESETS
from spec_convert.training.conversations.reading import as_conversation
from spec_convert.training.conversations.sources import open_source

WHY, BECAUSE = Message("user", "Why?"), Message("assistant", "Because.")
ONE = (WHY, BECAUSE)
TWO = (*ONE, Message("user", "How?"), Message("assistant", "So."))
BRIEF = (Message("system", "Be brief."), *ONE)

ROWS: list[tuple[object, tuple[Message, ...]]] = [
    ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]}, ONE),
    ({"conversations": [{"from": "user", "value": "Why?"}, {"from": "chatgpt", "value": "Because."}]}, ONE),
    ({"conversations": [{"role": "user", "content": "Why?"}, {"role": "model", "content": "Because."}]}, ONE),
    ({"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]}, ONE),
    ({"messages": [message.as_dict() for message in TWO], "prompt": "Its own first question", "prompt_id": 7}, TWO),
    ({"messages": [message.as_dict() for message in BRIEF]}, BRIEF),
    ({"messages": [message.as_dict() for message in ONE], "system": "Be brief."}, BRIEF),
    ({"messages": [{"from": "system", "value": ""}, *(message.as_dict() for message in ONE)]}, ONE),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}, BECAUSE.as_dict()]}, ONE),
    # As Arrow merges two spellings in one table.
    ({"messages": [{"from": "human", "value": "Why?", "role": None, "content": None}, BECAUSE.as_dict()]}, ONE),
    ({"question": "Why?", "answer": "Because."}, ONE),
    ({"prompt": "Why?", "response": "Because."}, ONE),
    ({"prompt": "Why?", "completion": "Because."}, ONE),
    ({"prompt": "Why?", "output": "Because.", "system": "Be brief."}, BRIEF),
    ({"prompt": [WHY.as_dict()], "answer": "Because."}, ONE),
    ({"turns": ["Why?"], "answer": "of somebody else"}, (WHY,)),
    ({"prompt": "Why?"}, (WHY,)),
    ({"text": "Why?"}, (WHY,)),
    ("Why?", (WHY,)),
    ({"messages": [WHY.as_dict(), {"role": "assistant", "content": ""}]}, (WHY, Message("assistant", ""))),
    (
        {"messages": [WHY.as_dict(), {**BECAUSE.as_dict(), "reasoning_content": "Hm.", "tool_calls": None}]},
        (WHY, Message("assistant", "Because.", "Hm.")),
    ),
    ({"messages": [WHY.as_dict(), {**BECAUSE.as_dict(), "reasoning_content": ""}]}, ONE),
]

MALFORMED: list[tuple[object, str, str]] = [
    ([1], "not_an_object", "a prompt is an object or a text, not a list"),
    ({"instruction": "Why?"}, "unknown_keys", "none of the keys instruction holds a prompt"),
    ({"messages": []}, "no_messages", "`messages` is an empty list"),
    ({"messages": [WHY.as_dict(), "Because."]}, "not_a_message", "message 2 is a text, not an object"),
    ({"messages": [{"role": "user"}]}, "not_a_message", "message 1 has neither role and content"),
    ({"messages": [{"role": "tool", "content": "42"}]}, "unknown_role", "message 1 is said by 'tool'"),
    ({"messages": [WHY.as_dict(), {"role": "system", "content": "x"}]}, "late_system_prompt", "message 2 is a system"),
    ({"messages": [BECAUSE.as_dict()]}, "no_user_turn", "the conversation has no user turn"),
    ({"messages": [{"role": "user", "content": " "}]}, "empty_message", "message 1 is empty"),
    ({"messages": [WHY.as_dict(), {"role": "gpt", "content": None}]}, "not_text", "message 2 is null, not text"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]}, "not_text", "message 1 is a list"),
    ({"question": "Why?", "answer": ["Because."]}, "not_text", "`answer` is a list, not text"),
    ({"question": "Why?", "answer": "half a \ud83d"}, "not_unicode", "`answer` is not valid Unicode"),
    (
        {"messages": [WHY.as_dict(), {"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}]},
        "tool_calls", "message 2 has `tool_calls`, which is not read",
    ),
    (MalformedRow("this line is not JSON: no", "not_json"), "not_json", "this line is not JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "messages"), ROWS)
def test_a_row_in_any_spelling_is_one_conversation(row: object, messages: tuple[Message, ...]) -> None:
    assert as_conversation(row, "here") == Conversation(messages, "here")


@pytest.mark.parametrize(("row", "reason", "what"), MALFORMED)
def test_what_is_no_conversation_says_why(row: object, reason: str, what: str) -> None:
    with pytest.raises(MalformedRow) as wrong:
        as_conversation(row, "here")
    assert wrong.value.reason == reason
    assert str(wrong.value).startswith(what)
    assert wrong.value.hint


def test_an_answer_before_the_first_question_is_left_out() -> None:
    answers = [{"from": "gpt", "value": "to what?"}, {"from": "gpt", "value": "and more"}]
    asked = [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
    read = as_conversation({"conversations": answers + asked}, "here")
    assert read == Conversation(ONE, "here", began_with_answer=True)
    read = as_conversation({"conversations": answers + asked, "system": "Be brief."}, "here")
    assert read == Conversation(BRIEF, "here", began_with_answer=True)


def test_reasoning_reaches_the_template_by_the_name_that_templates_know() -> None:
    assert Message("assistant", "So.", "Hm.").as_dict()["reasoning_content"] == "Hm."
    assert "reasoning_content" not in BECAUSE.as_dict()


def test_rows_come_with_their_places_and_a_broken_line_is_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "Why?"}\n\n{"prompt":\n"How?"\n')
    (first, row), (second, broken), (third, text) = read_rows(path)
    assert (first, second, third) == (f"{path}:1", f"{path}:3", f"{path}:4")
    assert (row, text) == ({"prompt": "Why?"}, "How?")
    assert isinstance(broken, MalformedRow)
    assert broken.reason == "not_json"


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    path, copy = tmp_path / "p.jsonl", tmp_path / "sub" / "p.jsonl"
    copy.parent.mkdir()
    for one in (path, copy):
        one.write_text(json.dumps({"prompt": "Why?"}))
    before = open_source(path)
    assert before.content == open_source(copy).content
    assert [row for _, row in before.read()] == [{"prompt": "Why?"}]
    path.write_text(json.dumps({"prompt": "How?"}))
    assert open_source(path).content != before.content


@pytest.mark.parametrize(("name", "what"), [("absent.jsonl", "is no file here"), ("gsm9k", "is no file here")])
def test_a_source_that_is_nothing_is_refused(name: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        open_source(name)


def test_what_can_be_read_only_once_is_not_called_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.jsonl")
    with pytest.raises(UsageError, match=r"p\.jsonl is no regular file"):
        open_source(tmp_path / "p.jsonl")


class Columns:
    """As much of a Dataset as choosing its columns needs."""

    def __init__(self, *column_names: str) -> None:
        self.column_names = column_names

    def select_columns(self, names: list[str]) -> Columns:
        return Columns(*names)


@pytest.fixture
def downloaded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`downloaded("messages", "x")`: every dataset has these columns. Returns what was asked for."""
    asked = SimpleNamespace(name="")

    def give(*columns: str) -> SimpleNamespace:
        def opened(name: str, *, streaming: bool) -> HubRows:
            assert not streaming
            asked.name = name
            return HubRows(name, "c0ffee", Columns(*columns))

        monkeypatch.setattr(sources, "open_hub_dataset", opened)
        return asked

    return give


def columns_of(name: str) -> tuple[str, ...]:
    read: Any = open_source(name).read
    return tuple(read.__self__.rows.column_names)


def test_of_a_dataset_only_the_columns_that_say_something_are_read(downloaded: Any) -> None:
    downloaded("prompt_id", "messages", "score", "system")
    assert columns_of("org/chats") == ("messages", "system")
    downloaded("instruction", "input")  # nothing that is known: the rows say themselves what is wrong with them
    assert columns_of("org/chats") == ("instruction", "input")
    assert open_source("org/chats@v1:train").content == "org/chats@v1:train commit:c0ffee"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_dataset_and_its_columns(name: str, downloaded: Any) -> None:
    preset = PRESETS[name]
    assert hub_dataset(preset.dataset) == preset.dataset
    asked = downloaded("something", *preset.columns)
    assert columns_of(name) == preset.columns
    assert asked.name == preset.dataset
    downloaded("something")
    with pytest.raises(UsageError, match=f"has no column {preset.columns[0]}: it has something"):
        open_source(name)
