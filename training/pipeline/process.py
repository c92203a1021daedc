"""A stage at work in a process of its own: what it says, and the signals that are meant for it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

import click

from spec_convert.training.record import now

# What each is for a stage: a terminal that is closed asks it to end in order, as SIGTERM does.
PASSED_ON = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}
LEFT_BEHIND = 5.0  # seconds that processes of a stage which has ended may still speak


@dataclass
class Heard:
    """The first signal that came to the pipeline, or 0, the stage at work, and what it has not been told yet."""

    signal: int = 0
    stage: subprocess.Popen[bytes] | None = None
    untold: list[int] = field(default_factory=list)

    def tell(self) -> None:
        """Each signal once: a second one is more than the first one again."""
        while self.stage is not None and self.untold:
            self.stage.send_signal(PASSED_ON[signal.Signals(self.untold.pop(0))])


@dataclass(frozen=True, slots=True)
class Ended:
    """``code`` as `Popen` has it: negative when a signal ended the process."""

    code: int
    seconds: float


@contextmanager
def hearing() -> Iterator[Heard]:
    """Pass signals on to the stage at work in this block, instead of ending by them. Ignored ones stay so."""
    heard = Heard()

    def hear(number: int, frame: FrameType | None) -> None:
        heard.signal = heard.signal or number
        heard.untold.append(number)
        heard.tell()

    before = {number: signal.getsignal(number) for number in PASSED_ON}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, hear)
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(command: Sequence[str], log: Path, heard: Heard) -> Ended:
    """Run ``command`` to its end. What it says is shown on stderr as it comes, and added to ``log``.

    The process is not in our group: a terminal's Ctrl-C reaches it once, through us.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as begun:
        begun.write(f"\n[{now()}] {shlex.join(command)}\n")
    began = time.monotonic()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    code = _wait(process, process.stdout, log, heard)
    return Ended(code, time.monotonic() - began)


def _wait(process: subprocess.Popen[bytes], said: IO[bytes], log: Path, heard: Heard) -> int:
    reader = threading.Thread(target=_tell, args=(said, log), daemon=True)
    reader.start()
    heard.stage = process
    heard.tell()  # what came while the process was started
    try:
        code = process.wait()
    finally:
        heard.stage = None
        with suppress(ProcessLookupError):  # nothing of it stays behind
            os.killpg(process.pid, signal.SIGKILL)
    reader.join(LEFT_BEHIND)
    return code


def _tell(said: IO[bytes], log: Path) -> None:
    shown = True
    with said, log.open("ab", buffering=0) as kept:
        while text := os.read(said.fileno(), 1 << 16):
            kept.write(text)
            try:
                if shown:
                    click.echo(text, nl=False, err=True)
            except OSError:  # the terminal has gone; the stage and its log go on
                shown = False
