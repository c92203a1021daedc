"""A page as a reader goes through it: every command that can run here, in the order of the page, in one folder.

A block of `sh` runs as one script of bash, and must end well; what it leaves in the background ends with it. What
cannot run here says so in its first line, such as `# needs the Hub`. A `console` block shows what its commands say. A
`toml` block whose first line is a name, `# run.toml`, is that file from there on.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from ..e2e.real_vllm import ENVIRONMENT
from ..e2e.test_serve_command import free_port
from .pages import Page, is_like, sessions_of

# What a block may need, in the words that readers see.
NEEDS = (
    "the Hub",
    "a GPU",
    "several GPUs",
    "several machines",
    "a running server",
    "a package index",
    "a checkout",
    "the shared folder",
    "other software",
    "hours",
)
MARK = re.compile(r"# needs ([^\n:]+)(?::[^\n]*)?\n")
NAMED = re.compile(r"# ([\w-]+\.toml)\n")
PORT = re.compile(r"(?<=--port )\d+|(?<=http://127\.0\.0\.1:)\d+")
PATIENCE = 400  # seconds for a block, in which it may start a vLLM


def marks(block: str) -> list[str]:
    """What a block of `sh` says that it needs; empty: it runs anywhere."""
    found = MARK.match(block)
    return found[1].split(" and ") if found else []


@dataclass
class Reader:
    """Types what a page says, in ``folder``. Ports are free ones: this machine may have others at work."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)  # of the environment, beside those of these tests
    ports: dict[str, str] = field(default_factory=dict)

    def problems(self, page: Page) -> Iterator[str]:
        """What does not go as the page says. A block that fails is the last one: the next ones may stand on it."""
        for language, block in page.in_order:
            if language == "console":
                yield from self._unlike(block)
            elif language == "toml" and (named := NAMED.match(block)):
                (self.folder / named[1]).write_text(block, encoding="utf-8")
            elif language == "sh" and not marks(block):
                code, output = self._typed(f"set -euo pipefail\n{block}")
                if code:
                    yield f"{block}\nended with {code}:\n{output}"
                    return
        program = "\n".join(page.blocks("python"))
        code, output = self._run([sys.executable, "-c", program])
        if code:
            yield f"its Python ended with {code}:\n{output}"

    def _unlike(self, block: str) -> Iterator[str]:
        for command, shown in sessions_of(block):
            _, answer = self._typed(command)
            if not is_like(shown, answer):
                yield f"$ {command}\n{answer}"

    def _typed(self, script: str) -> tuple[int, str]:
        return self._run(["bash", "-c", PORT.sub(self._free, script)])

    def _free(self, port: re.Match[str]) -> str:
        return self.ports.setdefault(port[0], str(free_port()))

    def _run(self, command: list[str]) -> tuple[int, str]:
        """Its exit code, and both of its streams as they come. Ends all that it has started."""
        with TemporaryFile() as said:  # not a pipe, which what stays in the background would hold open
            shell = subprocess.Popen(
                command, cwd=self.folder, env={**environment(), **self.variables}, stdout=said,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                code = shell.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                code = -1
            finally:
                end_group(shell.pid)
                shell.wait()
            said.seek(0)
            return code, said.read().decode(errors="replace")


def environment() -> Mapping[str, str]:
    """That of these tests, with the commands of this installation first and without the Hub.

    Models as tiny as these are served before a compiler has started.
    """
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    return os.environ | ENVIRONMENT | {"PATH": path, "TORCH_COMPILE_DISABLE": "1"}


def end_group(leader: int) -> None:
    with suppress(ProcessLookupError):  # all of it has ended by itself
        os.killpg(leader, signal.SIGKILL)
