"""A server of our own on this machine, for as long as a block runs: vLLM, or whatever else answers at `/health`."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.narration import say
from spec_convert.serving.command import MODULE, option
from spec_convert.serving.process import ENVIRONMENT, command_of, reason
from spec_convert.serving.versions import INSTALL, installed
from spec_convert.verifier import Verifier

GUARD = command_of("spec_convert.training.servers.until_stdin_ends")
HOST = "127.0.0.1"
POLL_SECONDS = 0.2
PROBE_SECONDS = 2.0
OURS = {
    "model": "--verifier",
    "revision": "--verifier BASE@REVISION",
    "served_model_name": "--verifier",
    "host": "nothing: the server is for this command alone",
    "port": "nothing: the server is for this command alone",
}


@dataclass(frozen=True, slots=True)
class LocalServer:
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def require_alive(self) -> None:
        """Raises UsageError when it has ended, with its own reason and the place of its log."""
        if (code := self.process.poll()) is None:
            return
        log = self.log.read_text(encoding="utf-8", errors="replace")
        why = reason(log) or "without a word"
        killed = f"killed by signal {-code}, as happens when memory runs out" if code < 0 else f"exit code {code}"
        raise UsageError(f"the server has ended ({killed}): {why}", hint=f"its whole log is {self.log}")


def vllm_command(verifier: Verifier, llm_args: Mapping[str, Any], *, port: int) -> list[str]:
    """What starts vLLM's server of a model. ``llm_args``: arguments of its `LLM` class. Raises UsageError."""
    if installed() is None:
        raise UsageError("vLLM is not installed", hint=f"{INSTALL}; or take --engine transformers")
    command = [*command_of(MODULE), "--model", verifier.name, "--served-model-name", verifier.name]
    command += ["--host", HOST, "--port", str(port), "--uvicorn-log-level", "warning"]
    if verifier.pinned:
        command += ["--revision", str(verifier.files.revision)]
    for name, value in llm_args.items():
        if name in OURS:
            raise UsageError(f"--llm-arg {name} is decided here", hint=f"what says it is {OURS[name]}")
        command += option(name, value)
    return command


def free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(command: Sequence[str], *, port: int) -> Iterator[LocalServer]:
    """The server that ``command`` starts at ``port``, once it answers; it ends with all that it has started.

    So it does however this process ends. Its log is kept when it or the block fails. Raises UsageError when it ends
    by itself.
    """
    handle, name = tempfile.mkstemp(prefix="spec-convert-server-", suffix=".log")
    log = Path(name)
    with os.fdopen(handle, "wb") as output:
        process = subprocess.Popen(
            [*GUARD, *command], stdin=subprocess.PIPE, stdout=output, stderr=output,
            env={**ENVIRONMENT, **os.environ}, start_new_session=True,
        )  # fmt: skip
    server = LocalServer(f"http://{HOST}:{port}", process, log)
    say(f"Starting a server; its log is {log}")
    try:
        _wait_for(server, port)
        yield server
    except UsageError:
        _end(process)
        raise
    except BaseException:
        _end(process)
        log.unlink()
        raise
    _end(process)
    log.unlink()


def _wait_for(server: LocalServer, port: int) -> None:
    """Never through a proxy, which the environment may name."""
    while True:
        server.require_alive()
        with closing(HTTPConnection(HOST, port, timeout=PROBE_SECONDS)) as connection:
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == HTTPStatus.OK:
                    return
            except (OSError, HTTPException):  # nobody listens yet
                pass
        time.sleep(POLL_SECONDS)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The guard ends the server, and then itself."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait()
