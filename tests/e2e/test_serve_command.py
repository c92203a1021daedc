"""`spec-convert serve` becomes a real server that drafts with the draft it was given."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from .conftest import Convert
from .real_vllm import ENVIRONMENT
from .same_function import NEW_TOKENS, PROMPT, greedy_text
from .tiny_pairs import CASES, write_verifier

pytestmark = [pytest.mark.long, pytest.mark.vllm]

# The tiny verifier has no tokenizer: it is asked in token ids, and answers in them.
VLLM_OPTIONS = ["--skip-tokenizer-init", "--dtype", "float32", "--max-model-len", "64", "--enforce-eager"]
QUESTION = {
    "prompt": PROMPT,
    "max_tokens": NEW_TOKENS,
    "temperature": 0,
    "ignore_eos": True,
    "detokenize": False,
    "return_token_ids": True,
}


@dataclass(frozen=True, kw_only=True)
class Server:
    process: subprocess.Popen[bytes]
    address: str

    def ask(self, path: str, question: dict[str, Any] | None = None) -> str:
        data = json.dumps(question).encode() if question else None
        request = Request(f"{self.address}{path}", data, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as response:
            body: bytes = response.read()
        return body.decode()

    def wait_until_healthy(self) -> None:
        """The timeout of the test ends the wait for a server that never is."""
        while True:
            assert self.process.poll() is None, "the server has ended"
            try:
                self.ask("/health")
            except (URLError, ConnectionError):
                time.sleep(0.5)
            else:
                return


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """`serve(draft, "--verifier", base)`: the command as a user types it, in a process of its own."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: str | Path) -> Server:
        port = free_port()
        command = [Path(sys.executable).with_name("spec-convert"), "serve", *args]
        options = ["--host", "127.0.0.1", "--port", str(port), *VLLM_OPTIONS]
        environment = os.environ | ENVIRONMENT | {"SPEC_CONVERT_CACHE": str(tmp_path / "cache")}
        started.append(subprocess.Popen([*command, "--", *options], env=environment))
        return Server(process=started[-1], address=f"http://127.0.0.1:{port}")

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_draft_in_its_authors_layout_is_served(serve: Callable[..., Server], tmp_path: Path) -> None:
    verifier = write_verifier(tmp_path / "verifier", "llama")
    draft = CASES["eagle3"].write(tmp_path / "draft")

    assert_drafts(serve(draft, "--verifier", verifier), verifier)


def test_a_unified_draft_is_served_after_its_verifier_has_moved(
    serve: Callable[..., Server], convert: Convert, tmp_path: Path
) -> None:
    before = write_verifier(tmp_path / "verifier", "llama")
    output = convert(CASES["eagle, fusion bias and own embeddings"].write(tmp_path / "draft"), verifier=before)
    verifier = before.rename(tmp_path / "moved")

    assert_drafts(serve(output, "--verifier", verifier, "--speculative-tokens", "2"), verifier)


def assert_drafts(server: Server, verifier: Path) -> None:
    """The text is the verifier's own, the draft took part in it, and SIGTERM ends vLLM itself."""
    server.wait_until_healthy()
    answer = json.loads(server.ask("/v1/completions", QUESTION))
    metrics = server.ask("/metrics")
    server.process.send_signal(signal.SIGTERM)

    assert answer["choices"][0]["token_ids"] == greedy_text(verifier)[len(PROMPT) :]
    drafts = re.search(r"^vllm:spec_decode_num_drafts_total\S* (\S+)$", metrics, re.MULTILINE)
    assert drafts is not None
    assert float(drafts[1]) > 0
    assert server.process.wait(timeout=60) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
