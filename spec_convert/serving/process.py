"""Runs a vLLM in a process of its own, speaks with it, and says in one line why when it fails.

vLLM takes the accelerator for good, prints hundreds of lines and starts processes: none of that belongs into ours. The
other end is `worker`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from textwrap import shorten
from typing import Any

from spec_convert.errors import UsageError

# Where the user has not said otherwise. The CPU build would take most of the machine for its cache: 4 GiB will do.
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_NO_USAGE_STATS": "1"}
PATIENCE, IMPATIENCE = 10, 2  # seconds that vLLM has to tidy up: when its work is done, and when nobody waits for it
_PREFIX = re.compile(r"^\(\w+ pid=\d+\) (?:[A-Z]+ \S+ \S+ \[[^\]]+\] ?)?|^[A-Z]+ \S+ \S+ \[[^\]]+\] ?")
_ERROR = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception): \S")
_SECOND_HAND = re.compile("root cause|initialization failed|encountered an issue")


def command_of(module: str) -> tuple[str, ...]:
    """What runs a module of ours by this Python, whatever lies in the folder where it is started."""
    return (sys.executable, "-P", "-m", module)


class Process:
    """A running process that speaks JSON, one message a line. In a group of its own, with all that it starts."""

    def __init__(self, command: Sequence[str], log: Path | None) -> None:
        self._log = log
        self.failed = False
        with log.open("wb") if log else nullcontext() as stderr:
            self._popen = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, encoding="utf-8",
                env={**ENVIRONMENT, **os.environ}, start_new_session=True,
            )  # fmt: skip

    def send(self, message: object) -> None:
        """Raises UsageError, which names vLLM's own reason and its log, when the process has ended."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps(message) + "\n")
            self._popen.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure() from error

    def receive(self) -> dict[str, Any]:
        """Its next message. Raises UsageError, which names vLLM's own reason and its log, when it ends without one."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line.endswith("\n"):
            raise self._failure()
        message: dict[str, Any] = json.loads(line)
        return message

    def interrupt(self) -> None:
        """For when nobody waits for it any more."""
        self._popen.send_signal(signal.SIGINT)
        self.end(IMPATIENCE)

    def end(self, patience: float = PATIENCE) -> None:
        """vLLM tidies up when it is given a moment; whatever is left of the group then is killed."""
        try:
            with suppress(subprocess.TimeoutExpired):
                self._popen.wait(patience)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()
            for pipe in (self._popen.stdin, self._popen.stdout):
                with suppress(BrokenPipeError):
                    pipe.close() if pipe else None

    def _failure(self) -> UsageError:
        self.end()
        self.failed = True
        if self._log is None:
            return UsageError("vLLM failed", hint="its own words are above")
        code = self._popen.returncode
        why = reason(self._log.read_text(encoding="utf-8", errors="replace"))
        why = why or f"its process ended with exit code {code}"
        if code < 0 and not _ERROR.search(why):
            why = f"its process was killed by signal {-code}, as happens when memory runs out"
        return UsageError(f"vLLM failed: {why}", hint=f"the whole log of vLLM is {self._log}")


@contextmanager
def started(command: Sequence[str], *, verbose: bool) -> Iterator[Process]:
    """The process of ``command``, which has ended, with all that it has started, when the block does.

    What vLLM prints goes to a file, which stays only when vLLM fails; with ``verbose`` it goes to our own stderr.
    """
    log = None if verbose else _new_log()
    failed = False
    try:
        process = Process(command, log)
        try:
            yield process
        except BaseException:
            failed = process.failed
            if not failed:
                process.interrupt()
            raise
        process.end()
    finally:
        if log and not failed:
            log.unlink()


def _new_log() -> Path:
    handle, name = tempfile.mkstemp(prefix="spec-convert-vllm-", suffix=".log")
    os.close(handle)
    return Path(name)


def reason(log: str) -> str:
    """The last error in vLLM's log that is not about another one; one line, without the log's own prefix."""
    lines = [_PREFIX.sub("", line).rstrip() for line in log.splitlines()]
    errors = [number for number, line in enumerate(lines) if _ERROR.match(line)]
    if not errors:
        return next((line for line in reversed(lines) if line), "")
    first_hand = [number for number in errors if not _SECOND_HAND.search(lines[number])]
    number = (first_hand or errors)[-1]
    kind, _, told = lines[number].partition(": ")
    if kind.endswith(".ValidationError") and number + 1 < len(lines):  # pydantic's: the reason is on the next line
        told = lines[number + 1].strip().removeprefix("Value error, ").partition(" [type=")[0]
    return shorten(f"{kind.rpartition('.')[2]}: {told}", width=400, placeholder=" …")
