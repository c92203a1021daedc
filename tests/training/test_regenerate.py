"""Regenerating through servers: rows in order, turns in context, and the same file however often the run is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from click.testing import CliRunner

from spec_convert.cli import cli
from spec_convert.cli import run as command_line
from spec_convert.errors import UsageError
from spec_convert.evaluation.prompt import Prompt
from spec_convert.evaluation.prompts import read_prompts
from spec_convert.training.regeneration import regenerating, server_engine
from spec_convert.training.regeneration.conversing import Asked, Sampling
from spec_convert.training.servers.endpoints import Endpoints

from .chat_server import MODEL, Body, ChatServer, Reply, answer, chat_server, refusal

PROGRAM = (sys.executable, "-P", "-m", "spec_convert", "regenerate")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


@pytest.fixture
def run(server: ChatServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """`regenerate chats.jsonl answers.jsonl --endpoint … --json`; what it prints, or, of a failure, its words."""

    def command(*flags: str, source: str = "chats.jsonl", fails: bool = False) -> dict[str, Any]:
        words = [str(tmp_path / source), str(tmp_path / "answers.jsonl"), "--endpoint", server.url]
        code = command_line(["regenerate", *words, "--patience", "5s", "--json", *flags])
        said = capfd.readouterr()
        assert code == (2 if fails else 0), said.err
        return {"error": said.err} if fails else json.loads(said.out)

    return command


def write_chats(folder: Path, rows: Sequence[object]) -> None:
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    (folder / "chats.jsonl").write_text(text, encoding="utf-8")


def chat(*turns: str, system: str | None = None) -> dict[str, Any]:
    """With answers of somebody else, which must not be seen again."""
    said = [{"from": "system", "value": system}] if system else []
    for turn in turns:
        said += [{"from": "human", "value": turn}, {"from": "gpt", "value": "as somebody else says"}]
    return {"conversations": said}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]


def said(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in row["conversations"]]


def test_each_turn_is_asked_in_the_context_of_the_new_answers(server: ChatServer, run: Any, tmp_path: Path) -> None:
    write_chats(tmp_path, [chat("One?", "Two?", system="Be kind.")])
    result = run()
    first = answer({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "One?"}]})
    first_words = first[1]["choices"][0]["message"]["content"]
    (row,) = rows_of(tmp_path)
    assert said(row)[:4] == [
        ("system", "Be kind."), ("user", "One?"), ("assistant", first_words), ("user", "Two?"),
    ]  # fmt: skip
    assert server.asked[1]["messages"] == row["conversations"][:4]
    assert row["finish_reasons"] == ["stop", "stop"]
    assert row["where"].endswith("chats.jsonl:1")
    assert "somebody else" not in json.dumps([server.asked, row])
    assert (result["answers"], result["conversations"], result["tokens"]) == (2, 1, 14)


def test_rows_stand_in_the_order_of_the_source_whichever_is_answered_first(
    server: ChatServer, run: Any, tmp_path: Path
) -> None:
    later_ones = Event()

    def first_one_last(body: Body) -> Reply:
        question = body["messages"][-1]["content"]
        if question == "5":
            later_ones.set()
        if question == "0":
            assert later_ones.wait(20)
        return answer(body)

    server.reply = first_one_last
    write_chats(tmp_path, [chat(str(number)) for number in range(6)])
    run("--concurrent-requests", "2")
    assert [said(row)[0][1] for row in rows_of(tmp_path)] == list("012345")
    assert not list(tmp_path.glob("*.partial"))


def test_prepare_can_read_what_is_written(server: ChatServer, run: Any, tmp_path: Path) -> None:
    from spec_convert.training.conversations.reading import as_conversation

    server.reply = lambda body: answer(body, reasoning="I think.")
    write_chats(tmp_path, [chat("One?", "Two?", system="Be kind.")])
    assert run()["with_reasoning"] == 2
    (row,) = rows_of(tmp_path)
    conversation = as_conversation(row, "here")
    assert [message.role for message in conversation.messages] == ["system", *["user", "assistant"] * 2]
    assert conversation.messages[-1].reasoning == "I think."
    assert "I think." not in json.dumps(server.asked)
    assert [prompt.turns for prompt in read_prompts(tmp_path / "answers.jsonl")] == [("One?", "Two?")]


def test_what_was_asked_for_reaches_the_server(server: ChatServer, run: Any, tmp_path: Path) -> None:
    write_chats(tmp_path, [chat("One?")])
    run("--max-tokens", "9", "--verifier", MODEL)
    assert server.asked[0] == {
        "model": MODEL, "messages": [{"role": "user", "content": "One?"}], "max_tokens": 9, "temperature": 0.0,
    }  # fmt: skip


def test_seeds_belong_to_conversations_and_not_to_the_order_of_asking(
    server: ChatServer, run: Any, tmp_path: Path
) -> None:
    write_chats(tmp_path, [chat(str(number), "and?") for number in range(6)])
    run("--temperature", "0.7", "--top-p", "0.9", "--concurrent-requests", "6")
    whole = rows_of(tmp_path)
    seeds = [body["seed"] for body in server.asked]
    assert len(set(seeds)) == 12
    assert all(body["temperature"] == 0.7 and body["top_p"] == 0.9 for body in server.asked)
    for path in tmp_path.glob("answers*"):
        path.unlink()
    write_chats(tmp_path, [chat(str(number), "and?") for number in range(3)])
    run("--temperature", "0.7", "--top-p", "0.9", "--concurrent-requests", "1")
    assert rows_of(tmp_path) == whole[:3]


def test_cut_answers_are_marked_and_counted(server: ChatServer, run: Any, tmp_path: Path) -> None:
    server.reply = lambda body: answer(body, finish="length" if body["messages"][-1]["content"] == "1" else "stop")
    write_chats(tmp_path, [chat("0"), chat("1")])
    assert run()["cut"] == 1
    assert [row["finish_reasons"] for row in rows_of(tmp_path)] == [["stop"], ["length"]]


def test_a_conversation_that_is_refused_is_left_out_with_its_reason(
    server: ChatServer, run: Any, tmp_path: Path
) -> None:
    server.reply = lambda body: refusal(400, "it is too long") if "long" in str(body["messages"]) else answer(body)
    write_chats(tmp_path, [chat("0"), chat("long"), '{"conversations": []}\n', "no JSON\n", chat("4")])
    result = run()
    assert [said(row)[0][1] for row in rows_of(tmp_path)] == ["0", "4"]
    told = {(one["where"].rpartition(":")[2], one["reason"]) for one in result["left_out"]}
    assert told == {("2", "refused"), ("3", "no_messages"), ("4", "not_json")}
    assert "400 it is too long" in [one["message"] for one in result["left_out"]]
    assert result["left_out_by_reason"] == {"no_messages": 1, "not_json": 1, "refused": 1}


def test_the_answers_before_a_refused_turn_are_kept(server: ChatServer, run: Any, tmp_path: Path) -> None:
    server.reply = lambda body: refusal(400, "too long") if len(body["messages"]) > 3 else answer(body)
    write_chats(tmp_path, [chat("0", "1", "2", "3")])
    assert run()["shortened"] == 1
    (row,) = rows_of(tmp_path)
    assert [role for role, _ in said(row)] == ["user", "assistant"] * 2
    assert row["unanswered"] == {"turn": 3, "reason": "400 too long"}


def test_ten_refusals_at_the_beginning_end_it_with_the_servers_words(
    server: ChatServer, run: Any, tmp_path: Path
) -> None:
    server.reply = lambda body: refusal(400, "max_tokens is too large")
    write_chats(tmp_path, [chat(str(number)) for number in range(40)])
    assert "400 max_tokens is too large" in run("--concurrent-requests", "2", fails=True)["error"]
    assert 10 <= len(server.asked) <= 14
    server.reply = answer
    run()  # what was refused then is asked again now
    assert len(rows_of(tmp_path)) == 40


def test_refusals_after_a_success_do_not_end_it(server: ChatServer, run: Any, tmp_path: Path) -> None:
    server.reply = lambda body: answer(body) if body["messages"][-1]["content"] == "0" else refusal(422, "no")
    write_chats(tmp_path, [chat(str(number)) for number in range(30)])
    assert run("--concurrent-requests", "1")["left_out_by_reason"] == {"refused": 29}


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key_or_address_is_no_matter_of_one_conversation(
    server: ChatServer, run: Any, tmp_path: Path, status: int
) -> None:
    write_chats(tmp_path, [chat(str(number)) for number in range(3)])
    server.reply = lambda body: answer(body) if body["messages"][-1]["content"] == "0" else refusal(status, "not you")
    assert f"{status} not you" in run("--concurrent-requests", "1", fails=True)["error"]
    assert not (tmp_path / "answers.jsonl").exists()


def test_an_answer_that_the_server_did_not_finish_is_not_taken(server: ChatServer, run: Any, tmp_path: Path) -> None:
    write_chats(tmp_path, [chat("0")])
    server.reply = lambda body: answer(body, finish="abort")
    assert "before it was finished" in run(fails=True)["error"]
    server.reply = lambda body: (200, {"hello": "I am no OpenAI"})
    assert "is no chat completion" in run(fails=True)["error"]


def test_a_server_that_fails_now_and_then_is_asked_again(server: ChatServer, run: Any, tmp_path: Path) -> None:
    seen: set[str] = set()

    def fails_first(body: Body) -> Reply:
        with server.lock:
            again = str(body) in seen
            seen.add(str(body))
        return answer(body) if again else refusal(503, "I am busy")

    server.reply = fails_first
    write_chats(tmp_path, [chat("0"), chat("1")])
    assert run()["conversations"] == 2


def test_another_request_for_the_same_output_is_refused_and_says_what_differs(
    server: ChatServer, run: Any, tmp_path: Path
) -> None:
    write_chats(tmp_path, [chat("0"), chat("1")])
    server.reply = lambda body: answer(body) if body["messages"][-1]["content"] == "0" else refusal(401, "no")
    run("--concurrent-requests", "1", fails=True)
    assert "its max_tokens is 2048, not 5" in run("--max-tokens", "5", fails=True)["error"]
    server.reply = answer
    run()
    asked = len(server.asked)
    (tmp_path / "answers.jsonl.partial").write_text("as after a kill between the last two steps")
    assert "its max_tokens is 2048, not 5" in run("--max-tokens", "5", fails=True)["error"]
    assert "nothing is left to do" not in run()["output"]
    assert not (tmp_path / "answers.jsonl.partial").exists()
    assert len(server.asked) == asked, "a finished output is not asked for again"
    write_chats(tmp_path, [chat("0"), chat("2")])
    assert "its sources is ['chats.jsonl sha256:" in run(fails=True)["error"]


def test_a_file_of_somebody_else_is_not_touched(server: ChatServer, run: Any, tmp_path: Path) -> None:
    write_chats(tmp_path, [chat("0")])
    (tmp_path / "answers.jsonl").write_text("mine")
    assert "is there already" in run(fails=True)["error"]
    assert (tmp_path / "answers.jsonl").read_text() == "mine"


def test_a_damaged_partial_file_is_not_gone_on_with(server: ChatServer, run: Any, tmp_path: Path) -> None:
    write_chats(tmp_path, [chat("0")])
    (tmp_path / "answers.jsonl.partial").write_text("my notes\n")
    assert "answers.jsonl.partial:1 is damaged" in run(fails=True)["error"]
    assert (tmp_path / "answers.jsonl.partial").read_text() == "my notes\n"


def start(server: ChatServer, folder: Path) -> subprocess.Popen[bytes]:
    words = [folder / "chats.jsonl", folder / "answers.jsonl", "--endpoint", server.url, "--concurrent-requests", "3"]
    return subprocess.Popen([*PROGRAM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_file(
    server: ChatServer, run: Any, tmp_path: Path
) -> None:
    write_chats(tmp_path, [chat(f"{number} ünd", "and?") for number in range(24)])
    run()
    expected = (tmp_path / "answers.jsonl").read_bytes()
    for path in tmp_path.glob("answers*"):
        path.unlink()
    server.asked.clear()

    def slow(body: Body) -> Reply:
        time.sleep(0.03)
        return answer(body)

    server.reply = slow
    partial = tmp_path / "answers.jsonl.partial"
    for wanted, kind, code in ((5, signal.SIGINT, 130), (12, signal.SIGKILL, -signal.SIGKILL)):
        process = start(server, tmp_path)
        while not partial.exists() or len(partial.read_bytes().splitlines()) <= wanted:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(kind)
        process.communicate(timeout=30)
        assert process.returncode == code
        assert not (tmp_path / "answers.jsonl").exists()
        with partial.open("ab") as file:
            file.write('{"place": 23, "row": "ü'.encode()[:-1])  # as when the disk was full
    done = len(partial.read_bytes().splitlines()) - 2
    run("--concurrent-requests", "3")
    assert (tmp_path / "answers.jsonl").read_bytes() == expected
    again = len(server.asked) - 2 * 24
    assert done >= 12
    assert again <= 2 * 3 * 2, "only what was under way is asked twice"


def test_nobody_waits_for_a_server_that_is_gone(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is for servers of others: one of our own that has ended does not come back."""
    monkeypatch.setattr(server_engine, "CHECK_SECONDS", 0.05)
    wanted = Event()
    server.reply = lambda body: answer(body) if wanted.wait(30) else refusal(500, "late")

    def require_alive() -> None:
        raise UsageError("it has ended")

    endpoints = Endpoints([server.url], concurrency=2, patience=60)
    sampling = Sampling(max_tokens=4)
    engine = server_engine.ServerEngine(endpoints, sampling, concurrency=2, require_alive=require_alive)
    with pytest.raises(UsageError, match="it has ended"):
        list(engine.outcomes([Asked(0, "here", Prompt(turns=("0",)))], ()))
    wanted.set()


def test_two_runs_do_not_write_one_output(server: ChatServer, run: Any, tmp_path: Path) -> None:
    write_chats(tmp_path, [chat("0")])
    wanted, asked = Event(), Event()

    def waits(body: Body) -> Reply:
        asked.set()
        wanted.wait(30)
        return answer(body)

    server.reply = waits
    process = start(server, tmp_path)
    assert asked.wait(30)
    assert "another process is writing" in run("--concurrent-requests", "3", fails=True)["error"]
    wanted.set()
    assert process.wait(30) == 0
    process.communicate()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["chats.jsonl", "answers.json", "--endpoint", "http://x"], "is not called .jsonl"),
        (["chats.jsonl", "no/answers.jsonl", "--endpoint", "http://x"], "there is no folder"),
        (["chats.jsonl", "a.jsonl", "--engine", "transformers"], "nobody is named who answers"),
        (["chats.jsonl", "a.jsonl", "--endpoint", "http://x", "--engine", "vllm"], "leave one of them out"),
        (["chats.jsonl", "a.jsonl", "--endpoint", "http://x", "--top-p", "0.5"], "greedy answers have no --top-p"),
        (["chats.jsonl", "a.jsonl", "--endpoint", "http://x", "--temperature", "nan"], "cannot sample at temperature"),
        (["absent.jsonl", "a.jsonl", "--endpoint", "http://x"], "absent.jsonl"),
        (["chats.jsonl", "a.jsonl", "--endpoint", "http://x", "--patience", "soon"], "is no time"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    words: list[str], expected: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_chats(tmp_path, [chat("0")])
    assert command_line(["regenerate", *words]) == 2
    told = capfd.readouterr().err
    assert expected in told
    assert "Traceback" not in told


def test_the_servers_model_must_be_the_one_that_was_named(run: Any, tmp_path: Path) -> None:
    write_chats(tmp_path, [chat("0")])
    assert f"call their model {MODEL}, not another" in run("--verifier", "another", fails=True)["error"]


def test_ten_rows_that_are_no_conversations_end_it_before_anybody_is_asked(
    server: ChatServer, run: Any, tmp_path: Path
) -> None:
    write_chats(tmp_path, [{"image": number} for number in range(12)])
    assert "nor is any row before it a conversation" in run(fails=True)["error"]
    assert not server.asked


def test_only_the_first_conversations_are_asked(server: ChatServer, run: Any, tmp_path: Path) -> None:
    write_chats(tmp_path, [chat("0"), {"image": 1}, chat("2"), chat("3")])
    assert run("--max-samples", "2")["conversations"] == 2
    assert sorted(server.questions) == ["0", "2"]


def test_the_pace_of_batches_is_told_once_each_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(regenerating, "say", said.append)
    clock = iter([0.0, 60.0, 60.1, 120.0, 120.1, 180.0])  # the start, two conversations after each minute, one more
    monkeypatch.setattr(regenerating.time, "monotonic", lambda: next(clock))
    pace = regenerating._Pace(8)
    for _ in range(5):
        pace.advance(30)
    assert said == [
        "2 of 8 conversations, 1 tokens/s, about 3 minutes to go",
        "4 of 8 conversations, 1 tokens/s, about 2 minutes to go",
    ]


def test_the_text_report_says_what_became_of_it(server: ChatServer, tmp_path: Path) -> None:
    server.reply = lambda body: refusal(400, "no") if body["messages"][-1]["content"] == "1" else answer(body)
    write_chats(tmp_path, [chat("0"), chat("1")])
    words = [str(tmp_path / "chats.jsonl"), str(tmp_path / "answers.jsonl"), "--endpoint", server.url]
    told = CliRunner().invoke(cli, ["regenerate", *words]).output
    assert "answers     1 in 1 conversations, 7 tokens" in told
    assert "left out    1 refused, the first " in told
    assert "chats.jsonl:2: 400 no" in told


def test_the_key_of_the_environment_is_sent(
    server: ChatServer, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_chats(tmp_path, [chat("0")])
    monkeypatch.setenv("OPENAI_API_KEY", "a secret")
    run()
    assert server.keys == {"Bearer a secret"}
    assert "a secret" not in (tmp_path / "answers.report.json").read_text()
