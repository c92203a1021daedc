"""A server of our own is there while the block runs, and gone with its children however the block or we end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from spec_convert.errors import UsageError
from spec_convert.serving import versions
from spec_convert.training.servers import local_server
from spec_convert.training.servers.local_server import free_port, running, vllm_command
from spec_convert.verifier import open_verifier

# Instead of vLLM: it needs a moment, has a child that does not want to end, and says both ids in the file named last.
SERVER = """
import os, signal, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-S", "-c", STUBBORN], stdout=subprocess.PIPE)
child.stdout.readline()
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            print("RuntimeError: out of luck", file=sys.stderr, flush=True)
            os._exit(3)
        ready = time.monotonic() > started + 0.3
        self.send_response(200 if ready else 503)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
started = time.monotonic()
server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
Path(sys.argv[2]).write_text(f"{os.getpid()} {child.pid}")
server.serve_forever()
"""


def command(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-S", "-c", SERVER, str(port), str(folder / "pids")]


def pids(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def running_still(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(folder: Path) -> None:
    deadline = time.monotonic() + 30
    while any(map(running_still, pids(folder))):
        assert time.monotonic() < deadline, "the server or its child has outlived us"
        time.sleep(0.02)


def logs(folder: Path) -> list[Path]:
    return list(folder.glob("spec-convert-server-*.log"))


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(local_server, "POLL_SECONDS", 0.05)


def test_it_answers_in_the_block_and_is_gone_with_its_children_after_it(tmp_path: Path) -> None:
    port = free_port()
    with running(command(tmp_path, port), port=port) as server:
        with urllib.request.urlopen(f"{server.url}/health") as response:
            assert response.status == 200
        server.require_alive()
        assert all(map(running_still, pids(tmp_path)))
        assert logs(tmp_path) == [server.log]
    assert not any(map(running_still, pids(tmp_path)))
    assert not logs(tmp_path)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError, UsageError])
def test_it_is_gone_when_the_block_fails(tmp_path: Path, failure: type[BaseException]) -> None:
    port = free_port()
    with pytest.raises(failure), running(command(tmp_path, port), port=port):
        raise failure("of the block")
    assert not any(map(running_still, pids(tmp_path)))
    assert bool(logs(tmp_path)) == (failure is UsageError), "the log is kept for what the user can mend"


def test_a_server_that_cannot_start_is_named_with_its_reason_and_its_log(tmp_path: Path) -> None:
    words = [sys.executable, "-S", "-c", "raise ValueError('no such model')"]
    with pytest.raises(UsageError, match=r"exit code 1.*ValueError: no such model") as caught, running(words, port=1):
        pass
    (log,) = logs(tmp_path)
    assert str(log) in caught.value.hint


def test_a_server_that_dies_later_is_noticed(tmp_path: Path) -> None:
    port = free_port()

    def use_it() -> None:
        with running(command(tmp_path, port), port=port) as server:
            with suppress(OSError):
                urllib.request.urlopen(f"{server.url}/die", timeout=10)
            server.process.wait(30)
            server.require_alive()

    with pytest.raises(UsageError, match=r"exit code 3.*out of luck"):
        use_it()
    wait_until_gone(tmp_path)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_is_gone_when_we_are_killed(tmp_path: Path, kind: signal.Signals) -> None:
    port = free_port()
    script = (
        "import sys, time\n"
        "from spec_convert.training.servers.local_server import running\n"
        f"with running(sys.argv[1:], port={port}):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    words = [sys.executable, "-P", "-c", script, *command(tmp_path, port)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert all(map(running_still, pids(tmp_path)))
        process.send_signal(kind)
    wait_until_gone(tmp_path)


def test_a_command_that_will_not_end_is_killed() -> None:
    impatient = (
        "import sys\n"
        "from spec_convert.training.servers import until_stdin_ends\n"
        "until_stdin_ends.PATIENCE = 0.1\n"
        "sys.exit(until_stdin_ends.main())\n"
    )
    stubborn = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True);"
        "time.sleep(600)"
    )
    words = [sys.executable, "-P", "-c", impatient, sys.executable, "-S", "-c", stubborn]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guard:
        assert guard.stdin is not None
        assert guard.stdout is not None
        pid = int(guard.stdout.readline())
        guard.stdin.close()
        assert guard.wait(30) not in (0, None)
    assert not running_still(pid)


def test_vllm_is_started_with_what_was_asked_for(verifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "installed", lambda: "0.32.0")
    args = {"max_model_len": 512, "enforce_eager": True, "enable_prefix_caching": False, "dtype": "float32"}
    text = " ".join(vllm_command(open_verifier(verifier), args, port=8123))
    assert f"--model {verifier} --served-model-name {verifier}" in text
    assert text.endswith("--max-model-len 512 --enforce-eager --no-enable-prefix-caching --dtype float32")
    assert "--port 8123" in text
    with pytest.raises(UsageError, match="--llm-arg port is decided here"):
        vllm_command(open_verifier(verifier), {"port": 1}, port=8123)


def test_without_vllm_it_says_how_to_get_one(verifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "installed", lambda: None)
    with pytest.raises(UsageError, match="vLLM is not installed") as caught:
        vllm_command(open_verifier(verifier), {}, port=1)
    assert versions.INSTALL in caught.value.hint
