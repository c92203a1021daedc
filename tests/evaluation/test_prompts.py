"""Every spelling of a prompt that datasets use is read as the same value; what is no prompt is named, never skipped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from spec_convert.errors import UsageError
from spec_convert.evaluation.prompt import Prompt
from spec_convert.evaluation.prompts import read_prompts

from ..hub.server import FakeHub

ONE = Prompt(turns=("Why?",))
TWO = Prompt(turns=("Why?", "How?"))
SYSTEM = Prompt(turns=("Why?",), system="Be brief.")

ROWS: list[tuple[object, Prompt]] = [
    ({"prompt": "Why?"}, ONE),
    ({"question": "Why?", "answer": "Because."}, ONE),
    ({"text": "Why?"}, ONE),
    ("Why?", ONE),
    ({"question_id": 81, "category": "writing", "turns": ["Why?", "How?"]}, TWO),
    ({"prompt": ["Why?", "How?"]}, TWO),
    ({"conversations": [{"role": "user", "content": "Why?"}]}, ONE),
    ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]}, ONE),
    (
        {"messages": [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "Because."},
            {"role": "user", "content": "How?"},
        ]},
        TWO,
    ),
    ({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]}, SYSTEM),
    ({"messages": [{"from": "system", "value": ""}, {"from": "human", "value": "Why?"}]}, ONE),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]}, ONE),
    ({"prompt": "Why?", "system": "Be brief."}, SYSTEM),
    ({"prompt": "Its own first question", "messages": [{"role": "user", "content": "Why?"}]}, ONE),
]  # fmt: skip

NO_PROMPTS: list[tuple[object, str]] = [
    ({"instruction": "Why?"}, "none of the keys instruction holds a prompt"),
    ({}, "none of the keys (none) holds a prompt"),
    ([1], "a prompt is an object or a text, not a list"),
    ({"prompt": 7}, "`prompt` is a number"),
    ({"prompt": " "}, "`prompt` is empty"),
    ({"turns": []}, "`turns` is an empty list"),
    ({"turns": ["Why?", None]}, "turn 2 of `turns` is null, not text"),
    ({"messages": [{"role": "assistant", "content": "Because."}]}, "the conversation has no user turn"),
    ({"messages": [{"role": "tool", "content": "42"}]}, "message 1 is said by 'tool'"),
    ({"messages": [{"role": "user"}]}, "message 1 has neither role and content nor from and value"),
    ({"messages": [{"role": "user", "content": "Why?"}, "How?"]}, "message 2 is a text, not an object"),
    (
        {"messages": [{"role": "user", "content": "Why?"}, {"role": "system", "content": "Be brief."}]},
        "message 2 is a system prompt, which only the first message can be",
    ),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "message 1 is a list, not text"),
]


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("row", "expected"), ROWS)
def test_a_row_is_read_in_every_spelling(row: object, expected: Prompt, tmp_path: Path) -> None:
    assert read_prompts(written(tmp_path / "p.jsonl", json.dumps(row))) == [expected]
    assert read_prompts(written(tmp_path / "p.json", json.dumps([row]))) == [expected]


@pytest.mark.parametrize(("row", "what"), NO_PROMPTS)
def test_a_row_that_is_no_prompt_is_named_and_not_skipped(row: object, what: str, tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", '{"prompt": "Why?"}', "", json.dumps(row))
    with pytest.raises(UsageError) as refused:
        read_prompts(path)
    assert refused.value.message.startswith(f"{path}:3: {what}")
    assert refused.value.hint


def test_lines_of_text_are_prompts_and_blank_ones_are_not(tmp_path: Path) -> None:
    assert read_prompts(written(tmp_path / "p.txt", "\ufeffWhy?", "", "How?")) == [ONE, Prompt(turns=("How?",))]


def test_parquet_is_read_like_jsonl(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}], "turns": None},
        {"messages": None, "turns": ["Why?", "How?"]},
    ]
    assert read_prompts(parquet(tmp_path / "p.parquet", rows)) == [SYSTEM, TWO]
    with pytest.raises(UsageError, match=r"p\.parquet: row 2: none of the keys"):
        read_prompts(parquet(tmp_path / "p.parquet", [{"prompt": "Why?", "x": 1}, {"prompt": None, "x": 2}]))


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "p.txt").write_bytes(b"caf\xe9\n")
    written(tmp_path / "p.jsonl", '{"prompt": "Why?"}', '{"prompt":')
    written(tmp_path / "p.json", '{"prompt": "Why?"}', '{"prompt": "How?"}')
    written(tmp_path / "object.json", '{"prompt": "Why?"}')
    for name, what in {
        "p.parquet": "is no readable Parquet file",
        "p.txt": "is not text in UTF-8",
        "p.jsonl": "p.jsonl:2: this line is not JSON",
        "p.json": "is not JSON",
        "object.json": "holds no list of prompts",
    }.items():
        with pytest.raises(UsageError, match=what) as refused:
            read_prompts(tmp_path / name)
        assert name in refused.value.message


def test_the_limit_stops_reading(tmp_path: Path) -> None:
    path = written(tmp_path / "p.jsonl", '{"prompt": "Why?"}', "this line is not read")
    assert read_prompts(path, limit=1) == [ONE]
    with pytest.raises(UsageError):
        read_prompts(path, limit=2)


def test_a_source_without_prompts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for source, what in {
        written(tmp_path / "empty.jsonl"): "holds no prompt",
        written(tmp_path / "prompts.csv", "Why?"): "has no ending that says what it holds",
        tmp_path / "sub": "is a folder",
        tmp_path / "absent.jsonl": "is no file here",
        "absent/prompts.jsonl": "is no file here",
    }.items():
        with pytest.raises(UsageError, match=what):
            read_prompts(source)


def test_without_the_libraries_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = parquet(tmp_path / "p.parquet", [{"prompt": "Why?"}])
    for module, source in {"datasets": "org/questions", "pyarrow": path}.items():
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UsageError, match="not installed") as refused:
            read_prompts(source)
        assert refused.value.hint == "pip install 'spec-convert[evaluate]'"


# Datasets on the Hub: the real library in a process of its own, which reads its environment when it is imported.

READ = """
import json, sys
from spec_convert.errors import UsageError
from spec_convert.evaluation.prompts import read_prompts

for source in sys.argv[1:]:
    try:
        print(json.dumps([prompt.turns for prompt in read_prompts(source, limit=3)]))
    except UsageError as refused:
        print(json.dumps(f"{refused.message} | {refused.hint}"))
"""


def read_there(hub: FakeHub, home: Path, *sources: str) -> list[Any]:
    ran = subprocess.run(
        [sys.executable, "-c", READ, *sources], env=os.environ | hub.environment(home), check=True, capture_output=True
    )
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_a_dataset_on_the_hub_is_read_by_its_id(tmp_path: Path) -> None:
    rows = [{"turns": ["Why?", "How?"]}, *({"turns": [f"Question {number}"]} for number in range(5))]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    train, test, old = (
        parquet(tmp_path / "p.parquet", [{"question": question, "answer": "Because."}]).read_bytes()
        for question in ("Never?", "Why?", "When?")
    )
    with FakeHub() as hub:
        hub.publish("datasets/org/bench", {"test.jsonl": lines})
        hub.publish("datasets/org/school", {"train.parquet": train, "test.parquet": test})
        hub.publish("datasets/org/school", {"train.parquet": old}, ref="v1")
        bench, ambiguous, tested, older, absent_split, absent = read_there(
            hub, tmp_path / "home",
            "org/bench", "org/school", "hf://org/school:test", "org/school@v1:train", "org/bench:dev", "org/absent",
        )  # fmt: skip
    assert bench == [["Why?", "How?"], ["Question 0"], ["Question 1"]]
    assert ambiguous == "org/school has several splits | say which: org/school:train, org/school:test"
    assert tested == [["Why?"]]
    assert older == [["When?"]]
    assert absent_split == "org/bench has no split dev | it has test"
    assert "the dataset org/absent cannot be read" in absent


def parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path
