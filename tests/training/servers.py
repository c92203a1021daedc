"""Small real HTTP servers, in threads, that behave as a test wants them to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from ..local_server import LocalServer, body_of

Body = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """``content`` None: the connection is closed without a word."""

    content: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Served:
    """A server of OpenAI's protocol on one port. ``respond`` makes a reply of a body, in a thread of its own."""

    def __init__(self, respond: Callable[[Body], Reply], *, model: str = "a-model", port: int = 0) -> None:
        self.respond, self.model = respond, model
        self.context: int | None = None  # how many tokens it says that the model takes
        self.bodies: list[Body] = []
        self.headers: list[Mapping[str, str]] = []
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()
        self._server = LocalServer(_handler(self), port=port)
        self.url = self._server.url
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Whoever calls then is refused the connection. Twice does no harm."""
        self._server.shutdown()
        self._server.server_close()

    def reply(self, body: Body) -> Reply:
        with self._lock:
            self.bodies.append(body)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return self.respond(body)
        finally:
            with self._lock:
                self.under_way -= 1


def _handler(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            card = {"id": served.model} | ({"max_model_len": served.context} if served.context else {})
            self._send(Reply({"object": "list", "data": [card]}))

        def do_POST(self) -> None:
            served.headers.append(dict(self.headers))
            body = json.loads(body_of(self))
            self._send(served.reply(body))

        def _send(self, reply: Reply) -> None:
            if reply.content is None:
                return
            data = json.dumps(reply.content).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            """Not on stderr, which tests look at."""

    return Handler


@contextmanager
def serving(respond: Callable[[Body], Reply], *, model: str = "a-model", port: int = 0) -> Iterator[Served]:
    served = Served(respond, model=model, port=port)
    try:
        yield served
    finally:
        served.stop()


def echo(body: Body) -> Reply:
    return Reply({"echo": body["n"]})
