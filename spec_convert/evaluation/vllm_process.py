"""Runs one vLLM engine in a process of its own, and says in one line why when it fails.

vLLM takes the accelerator for good, prints hundreds of lines and starts processes: none of that belongs into ours.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from textwrap import shorten
from typing import Any

from spec_convert.errors import UsageError

COMMAND = (sys.executable, "-P", "-m", "spec_convert.evaluation.vllm_worker")
# Where the user has not said otherwise. The CPU build would take most of the machine for its cache: 4 GiB will do.
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "4", "VLLM_NO_USAGE_STATS": "1"}
PATIENCE, IMPATIENCE = 10, 2  # seconds that vLLM has to tidy up: when its work is done, and when nobody waits for it
_PREFIX = re.compile(r"^\(\w+ pid=\d+\) (?:[A-Z]+ \S+ \S+ \[[^\]]+\] ?)?|^[A-Z]+ \S+ \S+ \[[^\]]+\] ?")
_ERROR = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception): \S")
_SECOND_HAND = re.compile("root cause|initialization failed|encountered an issue")


def run(request: Mapping[str, Any], *, on_progress: Callable[[int], object], verbose: bool) -> dict[str, Any]:
    """What `vllm_worker` answers to ``request``. Raises UsageError, which names vLLM's own reason and its log."""
    with _log(verbose=verbose) as log:
        with _worker(log) as worker:
            answer = _talk(worker, request, on_progress)
        if answer is None:
            raise _failure(log, worker.returncode)
    if "refused" in answer:
        raise UsageError(answer["refused"], hint="measure with --temperature 0, or with --engine transformers")
    result: dict[str, Any] = answer["result"]
    return result


def _talk(
    worker: subprocess.Popen[str], request: Mapping[str, Any], on_progress: Callable[[int], object]
) -> dict[str, Any] | None:
    """The worker's last message, its result or its refusal; None when it ended without one."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    try:
        worker.stdin.write(json.dumps(request) + "\n")
        worker.stdin.flush()
    except BrokenPipeError:
        return None
    for line in worker.stdout:
        message: dict[str, Any] = json.loads(line)
        if "answered" not in message:
            return message
        on_progress(message["answered"])
    return None


@contextmanager
def _log(*, verbose: bool) -> Iterator[Path | None]:
    """A file for what vLLM prints, which stays when vLLM fails. None: it goes to our own stderr."""
    if verbose:
        yield None
        return
    handle, name = tempfile.mkstemp(prefix="spec-convert-vllm-", suffix=".log")
    os.close(handle)
    try:
        yield Path(name)
    except UsageError:
        raise
    except BaseException:
        os.unlink(name)
        raise
    os.unlink(name)


@contextmanager
def _worker(log: Path | None) -> Iterator[subprocess.Popen[str]]:
    """The process, in a group of its own, which ends with all that it has started when the block does."""
    with log.open("wb") if log else nullcontext() as stderr:
        worker = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True, encoding="utf-8",
            env={**ENVIRONMENT, **os.environ}, start_new_session=True,
        )  # fmt: skip
    try:
        yield worker
    except BaseException:
        worker.send_signal(signal.SIGINT)
        _end(worker, IMPATIENCE)
        raise
    _end(worker, PATIENCE)


def _end(worker: subprocess.Popen[str], patience: float) -> None:
    """vLLM tidies up when it is given a moment; whatever is left of the group then is killed."""
    try:
        with suppress(subprocess.TimeoutExpired):
            worker.wait(patience)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        for pipe in (worker.stdin, worker.stdout):
            with suppress(BrokenPipeError):
                pipe.close() if pipe else None


def _failure(log: Path | None, code: int) -> UsageError:
    if log is None:
        return UsageError("vLLM failed", hint="its own words are above")
    why = reason(log.read_text(encoding="utf-8", errors="replace")) or f"its process ended with exit code {code}"
    if code < 0 and not _ERROR.search(why):
        why = f"its process was killed by signal {-code}, as happens when memory runs out"
    return UsageError(f"vLLM failed: {why}", hint=f"the whole log of vLLM is {log}")


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
