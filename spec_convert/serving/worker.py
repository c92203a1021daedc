"""The other end of `process`: how a process in which vLLM runs speaks with the one that has started it."""

from __future__ import annotations

import json
import os
import signal
from queue import SimpleQueue
from threading import Thread
from typing import Any

SIZE = 1 << 20  # bytes that are read at once


class Parent:
    """Whoever has started this process: one message of JSON a line, in on stdin, out on what was stdout.

    From now on whatever is printed goes to stderr: vLLM and its workers may print what they like. Stdin stays open as
    long as somebody waits: when it ends, this process ends, and with it those that vLLM has started.
    """

    def __init__(self) -> None:
        self._messages: SimpleQueue[bytes] = SimpleQueue()
        self._answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)
        Thread(target=self._listen, daemon=True).start()

    def receive(self) -> Any:
        """The next message; waits for it."""
        return json.loads(self._messages.get())

    def tell(self, **message: Any) -> None:
        self._answers.write(json.dumps(message) + "\n")

    def _listen(self) -> None:
        """Never `sys.stdin`, whose lock this thread would hold when the interpreter shuts down."""
        parts: list[bytes] = []
        while some := os.read(0, SIZE):
            *whole, rest = some.split(b"\n")
            for line in whole:
                self._messages.put(b"".join([*parts, line]))
                parts = []
            parts.append(rest)
        os.killpg(0, signal.SIGKILL)  # this process leads a group of its own, to which all that vLLM starts belongs
