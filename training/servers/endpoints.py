"""Several servers of one model behind OpenAI's protocol, as one: concurrent, patient, in order."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

from spec_convert.errors import UsageError
from spec_convert.narration import say
from spec_convert.training.servers.responses import asks_for_patience, content, reason, retry_after, said

if TYPE_CHECKING:
    import httpx

Body = Mapping[str, Any]
Answer = dict[str, Any]
Result = TypeVar("Result")

GREETING_SECONDS = 10.0  # in which a living server takes a connection and says what it serves
THIS_MACHINE = ("127.0.0.1", "localhost", "[::1]")  # a proxy, which the environment may name, is on another
LONGEST_PAUSE = 15.0  # seconds between two attempts, give or take half of it


class AskAgain(Exception):
    """Of what reads an answer: it is of no use, and the request must be made again."""


class _Stopped(Exception):
    """Nobody waits for the answers any more."""


@dataclass(eq=False)
class _Server:
    """``greeted``: it has said which model it serves since it last failed. Times are of `time.monotonic`."""

    root: str
    greeted: bool = False
    being_greeted: bool = False
    under_way: int = 0
    failures: int = 0  # of greetings, since the last success
    rests_until: float = 0.0
    last_words: str = "not asked yet"


class Endpoints:
    """Requests go to the server with the fewest under way; one that does not answer is left alone for a while."""

    def __init__(self, urls: Sequence[str], *, concurrency: int, patience: float, api_key: str | None = None) -> None:
        """``urls``: with or without `/v1`. ``concurrency``: requests under way at once, over all servers.

        ``patience``: seconds in which a server must answer a request, and for which one that has failed is tried
        again, with growing pauses. Raises UsageError when a URL is none.
        """
        self._servers = [_Server(root) for root in dict.fromkeys(map(_root, urls))]
        self._concurrency, self._patience, self._api_key = concurrency, patience, api_key
        self._model: str | None = None
        self.context: int | None = None  # tokens of a text and its answer that all of them take, where they say so
        self._changed = Condition()  # guards the servers

    def model(self) -> str:
        """The model that all of them serve. Waits until one of them answers; the others are asked when they do.

        Raises UsageError when none answers in time, or when they serve different ones.
        """
        with self._client() as client:
            call = _Call(self, client, "", lambda _, answer: answer)
            deadline = time.monotonic() + self._patience
            while True:
                for server in self._servers:
                    if not server.greeted and server.rests_until <= time.monotonic():
                        call.greet(server)
                if self._model is not None:
                    return self._model
                if time.monotonic() >= deadline:
                    raise self._given_up()
                time.sleep(max(0.0, min(deadline, *(one.rests_until for one in self._servers)) - time.monotonic()))

    def results(
        self, path: str, bodies: Iterable[Body], read: Callable[[Body, Answer], Result]
    ) -> Generator[Result, None, None]:
        """POST each body to ``path`` (`/v1/completions`), and yield what ``read`` makes of it and the answer.

        In the order of the bodies, of which it reads no more ahead than the concurrency. ``read`` works in the thread
        that asked; it raises AskAgain when the answer turns out to be of no use. What a server refuses for good (4xx
        but 408, 409, 425, 429) and what no server answers in time is a UsageError that names the server and its words.
        """
        bodies, waiting = iter(bodies), deque[Future[Result]]()
        with self._client() as client:
            call = _Call(self, client, path, read)
            try:
                while True:
                    for body in islice(bodies, self._concurrency - len(waiting)):
                        waiting.append(call.submit(body, self._concurrency))
                    if not waiting:
                        return
                    first: tuple[Future[Any], ...] = (waiting[0], call.broken)
                    wait(first, return_when=FIRST_COMPLETED)
                    if call.broken.done():
                        call.broken.result()
                    yield waiting.popleft().result()
            finally:
                call.stop()

    @contextmanager
    def posting(self, path: str) -> Iterator[Callable[[Body], Answer]]:
        """What posts one body to ``path`` and returns the answer, for threads of the caller's own.

        It raises RefusedByServer for what a server will never take, and UsageError when no server answers in time.
        """
        with self._client() as client:
            call = _Call(self, client, path, lambda _, answer: answer)
            try:
                yield call.result
            finally:
                call.stop()

    def _client(self) -> httpx.Client:
        import httpx

        key = {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        timeout = httpx.Timeout(self._patience, connect=GREETING_SECONDS)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._concurrency)
        direct = {f"all://{host}": None for host in THIS_MACHINE}
        return httpx.Client(headers=key, timeout=timeout, limits=limits, mounts=direct)

    def _given_up(self) -> UsageError:
        words = "; ".join(f"{server.root}: {server.last_words}" for server in self._servers)
        return UsageError(
            f"no server has answered a request for {self._patience:g} s: {words}",
            hint="start the servers again, or give a longer --patience, then run the same command: it goes on",
        )


class _Call(Generic[Result]):
    """The threads of one round of requests. They are daemons: an interrupt does not wait for what they wait for."""

    def __init__(
        self, endpoints: Endpoints, client: httpx.Client, path: str, read: Callable[[Body, Answer], Result]
    ) -> None:
        self._all, self._client, self._path, self._read = endpoints, client, path, read
        self._changed = endpoints._changed
        self._tasks: SimpleQueue[tuple[Body, Future[Result]] | None] = SimpleQueue()
        self._threads = 0
        self._stopped = False
        self.broken: Future[None] = Future()  # ends with the first request that fails for good

    def submit(self, body: Body, most_threads: int) -> Future[Result]:
        future: Future[Result] = Future()
        self._tasks.put((body, future))
        if self._threads < most_threads:
            self._threads += 1
            Thread(target=self._work, name=f"endpoints-{self._threads}", daemon=True).start()
        return future

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for _ in range(self._threads):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None and not self._stopped:
            body, future = task
            try:
                future.set_result(self.result(body))
            except _Stopped:
                return
            except BaseException as error:
                with suppress(Exception):  # another request was the first to fail
                    self.broken.set_exception(error)
                return

    def result(self, body: Body) -> Result:
        """Try until it succeeds. Raises UsageError when ``patience`` seconds have passed since it first did not."""
        deadline: float | None = None
        attempts, avoided = 0, None
        while True:
            server = self._take(avoided, deadline)
            try:
                answer = self._answer(server, body)
                if answer is not None:
                    return self._read(body, answer)
            except AskAgain as useless:
                self._failed(server, str(useless))
            finally:
                self._leave(server)
            deadline = deadline or time.monotonic() + self._all._patience
            avoided = server
            self._sleep(_pause(attempts), deadline)
            attempts += 1

    def _answer(self, server: _Server, body: Body) -> Answer | None:
        """None when the request is to be tried again. Raises UsageError when the server will never take it."""
        import httpx

        try:
            response = self._client.post(server.root + self._path, json=dict(body))
        except httpx.RequestError as error:
            self._failed(server, reason(error))
            return None
        if asks_for_patience(response):
            with self._changed:
                server.last_words = said(response)
                server.rests_until = max(server.rests_until, time.monotonic() + retry_after(response))
            return None
        return content(response)

    def _take(self, avoided: _Server | None, deadline: float | None) -> _Server:
        """The server with the fewest requests under way, one more from now on; waits while all of them rest."""
        while True:
            with self._changed:
                server = self._free(avoided)
                while server is None:
                    now = time.monotonic()
                    deadline = deadline or now + self._all._patience
                    rested = min((one.rests_until for one in self._all._servers if one.rests_until > now), default=None)
                    if now >= deadline:
                        raise self._all._given_up()
                    self._changed.wait(min(deadline, rested or deadline) - now)
                    server = self._free(avoided)
                if server.greeted:
                    server.under_way += 1
                    return server
                server.being_greeted = True
            try:
                self.greet(server)
            finally:
                with self._changed:
                    server.being_greeted = False
                    self._changed.notify_all()

    def _free(self, avoided: _Server | None) -> _Server | None:
        if self._stopped:
            raise _Stopped
        now = time.monotonic()
        free = [one for one in self._all._servers if one.rests_until <= now and not one.being_greeted]
        return min(free, key=lambda one: (one is avoided, one.under_way), default=None)

    def _leave(self, server: _Server) -> None:
        with self._changed:
            server.under_way -= 1

    def _failed(self, server: _Server, why: str) -> None:
        """It may be gone: it is greeted before it gets the next request."""
        with self._changed:
            server.greeted, server.last_words = False, why

    def _sleep(self, seconds: float, deadline: float) -> None:
        now = time.monotonic()
        if now >= deadline:
            raise self._all._given_up()
        until = min(now + seconds, deadline)
        with self._changed:
            while (left := until - time.monotonic()) > 0:
                if self._stopped:
                    raise _Stopped
                self._changed.wait(left)

    def greet(self, server: _Server) -> None:
        """Ask the server for its model. Raises UsageError when it is not that of the others."""
        import httpx

        try:
            response = self._client.get(f"{server.root}/v1/models", timeout=GREETING_SECONDS)
            problem = said(response) if asks_for_patience(response) else None
        except httpx.RequestError as error:
            problem = reason(error)
        if problem is not None:
            self._lost(server, problem)
            return
        model, context = _served(server, content(response))
        with self._changed:
            self._all.context = min((one for one in (self._all.context, context) if one is not None), default=None)
            first = self._all._model = self._all._model or model
            if model != first:
                raise UsageError(
                    f"{server.root} serves {model}, and another endpoint {first}",
                    hint="all endpoints must serve one model, under one name",
                )
            if server.failures:
                say(f"{server.root} is back")
            server.greeted, server.failures = True, 0

    def _lost(self, server: _Server, why: str) -> None:
        with self._changed:
            if not server.failures:
                say(f"{server.root} does not answer, and is tried again: {why}")
            server.rests_until = time.monotonic() + _pause(server.failures)
            server.failures += 1
            server.last_words = why


def _root(url: str) -> str:
    try:
        parts = urlsplit(url)
        (parts.hostname or "").encode("idna")  # as it will be looked up
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number, half a bracket, or a name with nothing between two dots
        usable = False
    if not usable or not url.isprintable() or set(url) & set(" ?#"):
        raise UsageError(f"`{url}` is no URL of a server", hint="such as --endpoint http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1")


def _served(server: _Server, answer: Answer) -> tuple[str, int | None]:
    """The model, and how many tokens it takes: vLLM says so."""
    match answer:
        case {"data": [{"id": str(name), **said}, *_]} if name:
            context = said.get("max_model_len")
            return name, context if isinstance(context, int) else None
    raise UsageError(
        f"{server.root}/v1/models names no model", hint="give the address of a server of OpenAI's protocol"
    )


def _pause(attempts: int) -> float:
    """Seconds, growing; uneven, so that what failed together does not come back together."""
    return float(min(LONGEST_PAUSE, 0.25 * 2**attempts) * random.uniform(0.5, 1.5))
