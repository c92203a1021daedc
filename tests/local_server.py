"""A small real HTTP server in this process: what its clients do to it is part of a test, and never on stderr."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LocalServer(ThreadingHTTPServer):
    """On a free port, or ``port``. Its threads end with the process.

    A client that is killed, or gives up, leaves its connection in the middle of a request. The traceback of that would
    be written from a thread into the stderr that a test reads, at whatever moment.
    """

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], *, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def body_of(handler: BaseHTTPRequestHandler) -> bytes:
    """What the client sends. Raises ConnectionError when it leaves before it has sent all."""
    length = int(handler.headers.get("Content-Length", 0))
    if len(body := handler.rfile.read(length)) < length:
        raise ConnectionAbortedError("the client has left")
    return body
