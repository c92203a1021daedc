"""Requests to several real local servers: answered in order, tried again with patience, and never lost or doubled."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice

import pytest

from spec_convert.errors import UsageError
from spec_convert.training.servers import endpoints
from spec_convert.training.servers.endpoints import AskAgain, Endpoints

from .servers import Body, Reply, echo, serving

PATH = "/v1/completions"


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is narrated. Pauses are a tenth of what they are."""
    lines: list[str] = []
    pause = endpoints._pause
    monkeypatch.setattr(endpoints, "say", lines.append)
    monkeypatch.setattr(endpoints, "_pause", lambda attempts: pause(attempts) / 10)
    return lines


def numbered(count: int) -> list[Body]:
    return [{"n": number} for number in range(count)]


def asked(urls: list[str], count: int, *, concurrency: int = 4, patience: float = 10) -> list[int]:
    return list(Endpoints(urls, concurrency=concurrency, patience=patience).results(PATH, numbered(count), echoed))


def echoed(_: object, answer: dict[str, int]) -> int:
    return answer["echo"]


def times(count: int, reply: Reply) -> Callable[[Body], Reply]:
    """Give this reply that many times, then echo."""
    left = iter(range(count))
    return lambda body: echo(body) if next(left, None) is None else reply


def test_answers_come_in_the_order_of_the_questions_which_are_asked_at_once() -> None:
    together = threading.Barrier(4)

    def later_ones_first(body: Body) -> Reply:
        if body["n"] < 4:
            together.wait(20)
        time.sleep(0.2 if body["n"] % 4 == 0 else 0)
        return echo(body)

    with serving(later_ones_first) as server:
        assert asked([server.url], 12) == list(range(12))
        assert server.most_under_way == 4
        assert sorted(body["n"] for body in server.bodies) == list(range(12))


def test_questions_are_read_no_further_ahead_than_they_are_asked() -> None:
    read: list[int] = []

    def questions() -> Iterator[Body]:
        for body in numbered(50):
            read.append(body["n"])
            yield body

    with serving(echo) as server:
        results = Endpoints([server.url], concurrency=5, patience=10).results(PATH, questions(), echoed)
        next(results)
        assert len(read) == 5
        next(results)
        assert len(read) == 6
        results.close()


def test_the_server_with_the_fewest_requests_under_way_is_asked() -> None:
    def slow(body: Body) -> Reply:
        time.sleep(0.3)
        return echo(body)

    with serving(slow) as one, serving(echo) as other:
        assert asked([one.url, f"{other.url}/v1/"], 40) == list(range(40))
        assert 0 < len(one.bodies) < len(other.bodies)


@pytest.mark.parametrize("status", [500, 503, 408, 409, 425, 429])
def test_what_may_succeed_later_is_tried_again(status: int, said: list[str]) -> None:
    with serving(times(3, Reply({"error": {"message": "busy"}}, status))) as server:
        assert asked([server.url], 8) == list(range(8))
        assert len(server.bodies) == 8 + 3
    assert said == []


def test_a_server_that_says_when_is_left_alone_until_then() -> None:
    asked_at: list[float] = []
    busy = times(1, Reply({}, 429, {"Retry-After": "1"}))

    def respond(body: Body) -> Reply:
        asked_at.append(time.monotonic())
        return busy(body)

    with serving(respond) as server:
        assert asked([server.url], 1) == [0]
    assert asked_at[1] - asked_at[0] >= 1


def test_a_refusal_ends_it_at_once_with_the_servers_words() -> None:
    free = threading.Event()

    def respond(body: Body) -> Reply:
        if body["n"] == 2:
            return Reply({"error": {"message": "the prompt is\n too long"}}, 400)
        free.wait(20)  # the requests before it are still under way
        return echo(body)

    with serving(respond) as server:
        started = time.monotonic()
        with pytest.raises(UsageError, match=f"{server.url}/v1/completions: 400 the prompt is too long"):
            asked([server.url], 8)
        free.set()
        assert time.monotonic() - started < 5
        assert sum(body["n"] == 2 for body in server.bodies) == 1


def test_an_answer_of_another_kind_is_a_refusal() -> None:
    with (
        serving(lambda _: Reply("not what was asked for")) as server,
        pytest.raises(UsageError, match="200 not what was asked for"),
    ):
        asked([server.url], 1)


def test_another_server_takes_over_from_one_that_dies(said: list[str]) -> None:
    with serving(echo) as one, serving(echo) as other:

        def die(body: Body) -> Reply:
            threading.Thread(target=one.stop).start()
            return Reply()

        one.respond = die
        assert asked([one.url, other.url], 30) == list(range(30))
        assert sorted(body["n"] for body in other.bodies) == list(range(30))
    assert len(said) == 1
    assert said[0].startswith(f"{one.url} does not answer, and is tried again: ")


def test_a_server_that_comes_back_goes_on(said: list[str]) -> None:
    with ExitStack() as servers:
        server = servers.enter_context(serving(echo))
        answers = Endpoints([server.url], concurrency=3, patience=20).results(PATH, numbered(40), echoed)
        before = list(islice(answers, 5))
        server.stop()
        threading.Timer(1, lambda: servers.enter_context(serving(echo, port=server.port))).start()
        assert before + list(answers) == list(range(40))
    assert [line.removeprefix(server.url)[:16] for line in said] == [" does not answer", " is back"]


def test_when_all_stay_away_each_is_named_with_its_last_words() -> None:
    with serving(echo) as gone, serving(lambda _: Reply({"detail": "no memory"}, 503)) as sick:
        gone.stop()
        started = time.monotonic()
        with pytest.raises(UsageError, match="no server has answered a request for 1 s") as raised:
            asked([gone.url, sick.url], 3, patience=1)
        assert 1 <= time.monotonic() - started < 5
    assert f"{gone.url}: ConnectError" in raised.value.message
    assert f"{sick.url}: 503 no memory" in raised.value.message
    assert "the same command" in raised.value.hint


def test_a_server_that_hangs_is_given_up_for_another() -> None:
    free = threading.Event()

    def hang(body: Body) -> Reply:
        free.wait(20)
        return Reply()

    with serving(hang) as one, serving(echo) as other:
        started = time.monotonic()
        assert asked([one.url, other.url], 6, patience=1) == list(range(6))
        assert time.monotonic() - started < 8
        free.set()


def test_a_result_that_is_of_no_use_is_asked_for_again() -> None:
    useless = iter([True, True])

    def read(body: object, answer: dict[str, int]) -> int:
        if next(useless, False):
            raise AskAgain("nothing came of it")
        return answer["echo"] * 10

    with serving(echo) as server:
        several = Endpoints([server.url], concurrency=2, patience=10)
        assert list(several.results(PATH, numbered(5), read)) == [0, 10, 20, 30, 40]
        assert len(server.bodies) == 7


def test_a_result_that_is_never_of_use_is_given_up_with_the_reason() -> None:
    def read(body: object, answer: object) -> None:
        raise AskAgain("nothing came of it")

    with serving(echo) as server:
        several = Endpoints([server.url], concurrency=2, patience=0.5)
        with pytest.raises(UsageError, match=f"{server.url}: nothing came of it"):
            list(several.results(PATH, numbered(5), read))


def test_all_serve_one_model() -> None:
    with serving(echo, model="one") as one, serving(echo, model="one") as same, serving(echo, model="two") as other:
        assert Endpoints([one.url, same.url], concurrency=1, patience=1).model() == "one"
        with pytest.raises(UsageError, match=f"{other.url} serves two, and another endpoint one"):
            Endpoints([one.url, other.url], concurrency=1, patience=1).model()


def test_a_server_that_comes_back_with_another_model_is_refused() -> None:
    with serving(echo, model="one") as server:
        several = Endpoints([server.url], concurrency=1, patience=10)
        assert several.model() == "one"
        server.model = "two"
        server.respond = times(1, Reply())  # fails once: it may have been started anew
        with pytest.raises(UsageError, match="serves two, and another endpoint one"):
            list(several.results(PATH, numbered(1), echoed))


def test_the_model_is_waited_for_with_patience() -> None:
    with serving(echo) as server:
        server.stop()
        started = time.monotonic()
        with pytest.raises(UsageError, match=f"{server.url}: ConnectError"):
            Endpoints([server.url], concurrency=1, patience=0.5).model()
        assert time.monotonic() - started >= 0.5


def test_a_server_of_another_protocol_is_named() -> None:
    with serving(echo, model="") as server, pytest.raises(UsageError, match=r"names no model") as raised:
        Endpoints([server.url], concurrency=1, patience=1).model()
    assert "OpenAI's protocol" in raised.value.hint


def test_the_key_is_sent() -> None:
    with serving(echo) as server:
        list(Endpoints([server.url], concurrency=1, patience=1, api_key="k-1").results(PATH, numbered(1), echoed))
        assert server.headers[0]["Authorization"] == "Bearer k-1"


def test_a_server_on_this_machine_is_not_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    with serving(echo) as server:
        for url in (server.url, f"http://localhost:{server.port}"):
            assert asked([url], 1, patience=1) == [0]


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000", "127.0.0.1", "", "ftp://x", "http://[x", "http://x:y", "http://x:0", "http://x:99999",
        "http://x..y", "http://x\n", "http://x y", "http://x?y=1", "http://x/#y", "http://",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no URL of a server"):
        Endpoints([url], concurrency=1, patience=1)


INTERRUPTED = """
import sys
from spec_convert.training.servers.endpoints import Endpoints

several = Endpoints([sys.argv[1]], concurrency=4, patience=60)
list(several.results("/v1/completions", [{"n": 0}] * 8, lambda body, answer: answer))
"""


def test_an_interrupt_ends_it_promptly() -> None:
    free, under_way = threading.Event(), threading.Event()

    def hang(body: Body) -> Reply:
        under_way.set()
        free.wait(30)
        return Reply()

    with (
        serving(hang) as server,
        subprocess.Popen([sys.executable, "-c", INTERRUPTED, server.url], stderr=subprocess.PIPE, text=True) as process,
    ):
        assert under_way.wait(30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        free.set()
    assert err.splitlines()[-1] == "KeyboardInterrupt"
