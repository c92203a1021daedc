"""A process that speaks: what it is sent and what it answers, and the one line that is left when it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from spec_convert.errors import UsageError
from spec_convert.serving import process

Talk = Callable[[str], tuple[str, ...]]


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    """`talk(body)`: the command of a process that does this with its `parent`."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def command(body: str) -> tuple[str, ...]:
        script = tmp_path / "worker.py"
        script.write_text(
            f"import os, sys\nfrom spec_convert.serving.worker import Parent\nparent = Parent()\n{dedent(body)}"
        )
        return (sys.executable, str(script))

    return command


def ask(command: tuple[str, ...]) -> dict[str, object]:
    with process.started(command, verbose=False) as other:
        other.send("a")
        return other.receive()


ECHO = """
    while (message := parent.receive()) is not None:
        print("noise")
        parent.tell(same=message)
"""


def test_many_messages_go_both_ways_whole_and_in_order(talk: Talk, tmp_path: Path) -> None:
    long = list(range(500_000))  # more than pipes and reads hold at once
    with process.started(talk(ECHO), verbose=False) as other:
        for message in ("a", long, {"b": "line\nbreak, ä"}):
            other.send(message)
        assert [other.receive()["same"] for _ in range(3)] == ["a", long, {"b": "line\nbreak, ä"}]
        other.send(None)
    assert list(tmp_path.glob("*.log")) == []


@pytest.mark.parametrize(
    "how", ["raise ValueError('no such layer')", "os.write(2, b'ValueError: no such layer'); os._exit(1)"]
)
def test_a_process_that_ends_too_early_is_a_failure_with_its_reason(talk: Talk, tmp_path: Path, how: str) -> None:
    with pytest.raises(UsageError, match="vLLM failed: ValueError: no such layer") as refused:
        ask(talk(f"parent.receive()\n{how}"))
    [log] = tmp_path.glob("*.log")
    assert refused.value.hint == f"the whole log of vLLM is {log}"


def test_an_answer_that_breaks_off_is_a_failure(talk: Talk) -> None:
    body = "parent.receive()\nparent._answers.write('{\"a\": 1'); parent._answers.flush(); os.kill(os.getpid(), 9)"
    with pytest.raises(UsageError, match="killed by signal 9"):
        ask(talk(body))


def test_talking_to_a_process_that_is_gone_is_a_failure_too(talk: Talk) -> None:
    def talk_on(other: process.Process) -> None:
        while True:
            other.send("a")

    with (
        pytest.raises(UsageError, match="vLLM failed: ValueError: gone"),
        process.started(talk("raise ValueError('gone')"), verbose=False) as other,
    ):
        talk_on(other)


def test_an_error_of_our_own_ends_the_process_and_leaves_no_log(talk: Talk, tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="the disk is full"),
        process.started(talk(ECHO), verbose=False) as other,
    ):
        raise UsageError("the disk is full")
    with pytest.raises(ValueError, match="closed file"):
        other.send("a")
    assert list(tmp_path.glob("*.log")) == []


LOGS = {
    "the engine's own reason, not what others say of it": (
        """
        (EngineCore pid=9) ERROR 11-21 07:16:31 [core.py:1188] EngineCore failed to start.
        (EngineCore pid=9) ERROR 11-21 07:16:31 [core.py:1188] Traceback (most recent call last):
        (EngineCore pid=9) ERROR 11-21 07:16:31 [core.py:1188]     raise ValueError(
        (EngineCore pid=9) ERROR 11-21 07:16:31 [core.py:1188] ValueError: no room for the cache
        (EngineCore pid=9) Process EngineCore:
        (EngineCore pid=9) RuntimeError: Worker failed with error 'x', see the stack trace above for the root cause
        Traceback (most recent call last):
        RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
        """,
        "ValueError: no room for the cache",
    ),
    "the text of a validation error, which comes on the lines below": (
        """
        pydantic_core._pydantic_core.ValidationError: 1 validation error for SpeculativeConfig
          Value error, the draft is too long [type=value_error, input_value=1, input_type=int]
            For further information visit https://errors.pydantic.dev
        """,
        "ValidationError: the draft is too long",
    ),
    "the second-hand reason when there is no other": (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'a': -9}",
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'a': -9}",
    ),
    "the last line when nothing looks like an error": ("first\nIllegal instruction\n\n", "Illegal instruction"),
    "nothing when it said nothing": ("", ""),
}


@pytest.mark.parametrize("what", LOGS)
def test_out_of_a_long_log_comes_one_line(what: str) -> None:
    log, expected = LOGS[what]
    assert process.reason(dedent(log)) == expected
