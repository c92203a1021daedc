"""Runs a command for as long as its own stdin stays open: `python -m …until_stdin_ends COMMAND…`.

Whoever started it may end in any way, by SIGKILL too: the command and all that it has started end as well.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from threading import Thread

PATIENCE = 5.0  # seconds that the command has to tidy up


def main() -> int:
    """The command's exit code."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, process_group=0)
    Thread(target=_end_with_stdin, args=(process,), daemon=True).start()
    try:
        return process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _end_with_stdin(process: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1024):  # never `sys.stdin`, whose lock this thread would hold when the interpreter shuts down
        pass
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    sys.exit(main())
