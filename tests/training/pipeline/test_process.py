"""A process at work: what it says is shown and kept, and signals reach it once each."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from spec_convert.training.pipeline.process import hearing, run

TOLD = """
import signal, sys, time
heard = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: heard.append(number))
print("ready", flush=True)
while len(heard) < int(sys.argv[1]):
    time.sleep(0.01)
time.sleep(0.2)
print("heard", *heard)
sys.exit(7)
"""


def started(code: str, *args: str) -> list[str]:
    return [sys.executable, "-c", code, *args]


def test_both_streams_are_shown_and_kept_and_logs_grow(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('out'); sys.stderr.write('err\\n')"
    with hearing() as heard:
        for _ in range(2):
            assert run(started(code), tmp_path / "logs" / "it.log", heard).code == 0
    assert (tmp_path / "logs" / "it.log").read_text().count("out\nerr\n") == 2
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "out\nerr\n" * 2)


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ([signal.SIGINT], [2]),
        ([signal.SIGTERM], [15]),
        ([signal.SIGHUP], [15]),
        ([signal.SIGINT, signal.SIGTERM], [2, 15]),
    ],
)
def test_signals_reach_the_stage_once_each(sent: list[signal.Signals], told: list[int], tmp_path: Path) -> None:
    log = tmp_path / "log"

    def send() -> None:
        while not log.exists() or "\nready\n" not in log.read_text():
            time.sleep(0.02)
        for number in sent:
            os.kill(os.getpid(), number)
            time.sleep(0.05)

    thread = threading.Thread(target=send)
    with hearing() as heard:
        thread.start()
        ended = run(started(TOLD, str(len(sent))), log, heard)
    thread.join()
    assert (ended.code, heard.signal) == (7, sent[0])
    assert f"heard {' '.join(map(str, told))}\n" in log.read_text()


def test_a_signal_before_the_stage_is_up_reaches_it(tmp_path: Path) -> None:
    with hearing() as heard:
        os.kill(os.getpid(), signal.SIGTERM)
        assert run(started("import time; time.sleep(60)"), tmp_path / "log", heard).code == -15


def test_handlers_are_given_back_and_ignored_signals_stay_ignored(monkeypatch: Any) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with hearing() as heard:
            os.kill(os.getpid(), signal.SIGHUP)
            assert heard.signal == 0
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_nothing_of_a_stage_stays_behind(tmp_path: Path) -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    with hearing() as heard:
        ended = run(started(code), tmp_path / "log", heard)
    assert ended.seconds < 30
    assert gone(int((tmp_path / "log").read_text().split()[-1]))


def gone(process: int) -> bool:
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
