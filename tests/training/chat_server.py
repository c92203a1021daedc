"""A server of OpenAI's chat completions that answers by rule, for tests: slowly, not at all, or with errors if told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from threading import Lock, Thread
from typing import Any

from ..local_server import LocalServer, body_of

MODEL = "a model"
Body = dict[str, Any]
Reply = tuple[int, dict[str, Any]]


def answer(body: Body, *, finish: str = "stop", **message: object) -> Reply:
    """Depends on the whole context, and on the seed when there is one."""
    told = json.dumps([body["messages"], body.get("seed")])
    content = f"I say {hashlib.sha256(told.encode()).hexdigest()[:8]}."
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return 200, {"choices": [choice], "usage": {"completion_tokens": 7}}


def refusal(status: int, words: str) -> Reply:
    return status, {"error": {"message": words}}


@dataclass
class ChatServer:
    """``reply`` may be replaced at any time. ``asked``: the bodies so far, in the order in which they came."""

    url: str = ""
    reply: Callable[[Body], Reply] = answer
    asked: list[Body] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)

    @property
    def questions(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.asked]


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    state = ChatServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": MODEL}]})

        def do_POST(self) -> None:
            body = json.loads(body_of(self))
            with state.lock:
                state.asked.append(body)
                state.keys.add(self.headers["Authorization"])
            self._send(*state.reply(body))

        def _send(self, status: int, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = LocalServer(Handler)
    state.url = server.url
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
