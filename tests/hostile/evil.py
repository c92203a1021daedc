"""Everything that a command must never do, done on purpose: whether the sandbox sees it. Runs inside of it only."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Payload:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch executed",)


def read(path: str) -> None:
    Path(path).read_text()


def read_in_a_thread(path: str) -> None:
    thread = threading.Thread(target=read, args=(path,))
    thread.start()
    thread.join()


def import_it(folder: str) -> None:
    sys.path.insert(0, folder)
    try:
        importlib.import_module("planted")
    finally:
        sys.path.remove(folder)


def hang(_: str) -> None:
    while True:
        pass


def swallow(_: str) -> None:
    with contextlib.suppress(PermissionError):
        os.system("true")


EVIL: dict[str, Callable[[str], Any]] = {
    "read": read,
    "read in a thread": read_in_a_thread,
    "list": os.listdir,
    "write": lambda path: Path(path).write_text("x"),
    "remove": os.remove,
    "system": swallow,
    "start": lambda _: subprocess.run(["true"], check=True),
    "fork": lambda _: os.fork() or os._exit(0),
    "unpickle": lambda _: pickle.loads(pickle.dumps(Payload())),
    "evaluate": lambda _: eval("1 + 1"),
    "import": import_it,
    "connect": lambda _: socket.create_connection(("127.0.0.1", 9), timeout=1),
    "hang": hang,
    "wait": lambda path: Path(path).read_bytes(),
    "grow": lambda _: len(bytes(b"x" * (1 << 30))),
    "exhaust": lambda _: bytearray(8 << 30),
    "crash": lambda _: 1 / 0,
    "print": lambda _: print("\x1b[2J"),
    "tell": print,
    "litter": lambda _: Path("left").write_text("x"),
    "exit": lambda _: 3,
    "nothing": lambda _: None,
}


def run_evil(command: list[str]) -> int:
    """``["evil", NAME, ARGUMENT]``"""
    code = EVIL[command[1]](command[2])
    return 3 if code == 3 else 0
