"""Which stream gets what, in which colours, and what happens when somebody leaves or interrupts."""

from __future__ import annotations

import io
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import spec_convert.writer
from spec_convert.narration import EVERY, LONG, bar, listen, progress, say

COMMAND = [sys.executable, "-m", "spec_convert"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_terminal() -> Callable[..., str]:
    """Runs a command whose stderr is a terminal; returns what it showed there."""

    def run(*args: object, **environment: str) -> str:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, *map(str, args)], stdout=subprocess.DEVNULL, stderr=theirs, env=os.environ | environment
        )
        process.wait()
        os.close(theirs)
        shown = os.read(ours, 100_000).decode()
        os.close(ours)
        return shown

    return run


def conversion(draft: Any) -> list[object]:
    return ["convert", draft.write(), draft.folder.parent / "out", "--verifier", draft.verifier, "--dry-run"]


def test_a_terminal_gets_colours_unless_it_asks_for_none(on_terminal: Any, eagle: Any) -> None:
    command = conversion(eagle(rope_theta=...))
    assert "\x1b[" in on_terminal(*command)
    plain = on_terminal(*command, NO_COLOR="1")
    assert "note: config.json: has no rope_theta" in plain
    assert "\x1b[" not in plain


@pytest.mark.parametrize("service", ["GITHUB_ACTIONS", "CI", "FORCE_COLOR"])
def test_a_pipe_gets_no_colours_even_in_ci(process: Any, eagle: Any, service: str) -> None:
    ran = process(*conversion(eagle(rope_theta=...)), **{service: "true"})
    assert "Converting" in ran.err
    assert "\x1b[" not in ran.out + ran.err


@pytest.mark.parametrize(
    ("args", "code"), [(["explain"], 0), (["formats", "eagle3", "--json"], 0), (["validate", "/nowhere/at/all"], 2)]
)
def test_a_reader_that_leaves_changes_neither_the_verdict_nor_stderr(args: list[str], code: int) -> None:
    process = subprocess.Popen([*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.close()
    _, err = process.communicate()
    assert (process.returncode, err) == (code, "")


def test_an_interrupt_is_exit_130_in_one_word(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [*COMMAND, "convert", "org/draft", str(tmp_path / "out"), "--verifier", "org/base"],
            env=os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with silent.accept()[0]:  # now it waits for an answer that never comes
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_bug_is_one_line_and_a_traceback_only_on_demand(
    cli: Any, eagle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **flags: object) -> None:
        raise ZeroDivisionError("by surprise")

    monkeypatch.setattr("spec_convert.detection.detect", broken)
    ran = cli("detect", eagle().write())
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: internal error: ZeroDivisionError: by surprise\n")
    monkeypatch.setenv("SPEC_CONVERT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli("detect", eagle().folder)


def test_a_library_user_hears_nothing(eagle: Any, capfd: pytest.CaptureFixture[str]) -> None:
    eagle().convert()
    assert capfd.readouterr() == ("", "")


def shown_by(total: int, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, *, wanted: bool = True) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    listen(wanted=wanted)
    with progress(total) as advance:
        advance(total // 2)
    listen(wanted=False)
    return stream.getvalue()


def test_long_work_draws_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "/400M" in shown_by(2 * LONG, Terminal(), monkeypatch)


def test_no_bar_in_a_pipe_for_short_work_or_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_by(2 * LONG, io.StringIO(), monkeypatch) == ""
    assert shown_by(LONG, Terminal(), monkeypatch) == ""
    assert shown_by(2 * LONG, Terminal(), monkeypatch, wanted=False) == ""


def test_what_is_said_meanwhile_stands_on_lines_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("NO_COLOR", "1")  # the logger is made once for all tests
    listen()
    with bar(3, unit="step", done=1) as drawn:
        assert drawn is not None
        say("half of it")
        drawn.update(2)
    listen(wanted=False)
    drawn_so_far, _, after = stderr.getvalue().partition("\rINFO    half of it\n")
    assert "1/3 [" in drawn_so_far
    assert "3/3 [" in after.rpartition("\r")[2]


def test_where_nobody_looks_work_that_is_told_aloud_says_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stderr = iter([0.0, 10.0, EVERY + 30, EVERY + 31]), io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr("spec_convert.narration.time.monotonic", lambda: next(clock))
    listen()
    with progress(10_000, unit="token", aloud=True) as advance:
        for _ in range(3):
            advance(1_200)
    listen(wanted=False)
    assert stderr.getvalue() == "INFO    2,400 of 10,000 tokens, 40 tokens/s, about 3 minutes to go\n"


def test_the_writer_advances_by_every_byte(eagle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    @contextmanager
    def recorded(total: int) -> Iterator[Callable[[int], None]]:
        yield steps.append
        assert sum(steps) == total

    monkeypatch.setattr(spec_convert.writer, "progress", recorded)
    draft = eagle()
    draft.convert(dtype="bfloat16")
    assert sorted(steps) == sorted(tensor.nbytes // 2 for tensor in draft.tensors.values())
