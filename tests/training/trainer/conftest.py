"""Trainings in processes of their own, that can be killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PLAN = {"lr": 0.01, "seed": 1, "epochs": 2, "log_every": 2, "measure_every": 2, "device": "cpu"}


class Runs:
    """Each run is a fork of a process that has done the imports."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def begin(self, folder: Path, *, processes: int = 1, rows: tuple[int, ...] = (5,), **more: Any) -> list[int]:
        """Start a training of the plan above and more; returns its process ids."""
        plan = {**PLAN, **more.pop("plan", {})}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        env: list[dict[str, str]] = [{}]
        if processes > 1:
            shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
            env = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        request = {"env": env, "run": {"folder": str(folder), "plan": plan, "rows": rows, **more}}
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return self._said()

    def ended(self) -> list[int]:
        """The exit codes of the run that was begun; that of a killed process is below 0."""
        return self._said()

    def __call__(self, folder: Path, **more: Any) -> int:
        """A whole run; returns its exit code, which is that of all its processes."""
        self.begin(folder, **more)
        (code,) = set(self.ended())
        return code

    def _said(self) -> list[int]:
        assert self._server.stdout is not None
        said: list[int] = json.loads(self._server.stdout.readline())
        return said


@pytest.fixture(scope="session")
def runs() -> Iterator[Runs]:
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("toy.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    yield Runs(server)
    server.kill()  # it has nothing to put in order, which would take seconds
    server.communicate()
