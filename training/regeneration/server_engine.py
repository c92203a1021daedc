"""Answers from servers of OpenAI's protocol: many conversations at once, each turn after turn."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from spec_convert.errors import UsageError
from spec_convert.training.regeneration.conversing import Answer, Asked, Messages, Outcome, Refused, Sampling, converse
from spec_convert.training.servers.endpoints import Endpoints
from spec_convert.training.servers.responses import RefusedByServer

PATH = "/v1/chat/completions"
OF_THIS_REQUEST = (400, 413, 422)  # refusals that say nothing of other requests, unlike a wrong key or address
UNFINISHED = ("abort", "error")  # how vLLM and SGLang end what they do not go on with
REASONING = ("reasoning", "reasoning_content")  # as servers spell it
CHECK_SECONDS = 1.0

Task = TypeVar("Task")
Result = TypeVar("Result")
Post = Callable[[Mapping[str, Any]], dict[str, Any]]


class ServerEngine:
    def __init__(
        self,
        endpoints: Endpoints,
        sampling: Sampling,
        *,
        concurrency: int,
        require_alive: Callable[[], object] = lambda: None,
    ) -> None:
        """``require_alive`` is called now and then while answers are awaited, and raises UsageError to end that."""
        self._endpoints, self._sampling = endpoints, sampling
        self._concurrency, self._require_alive = concurrency, require_alive

    def outcomes(self, asked: Sequence[Asked], done: Collection[int]) -> Generator[Outcome, None, None]:
        left = [one for one in asked if one.place not in done]
        model = self._endpoints.model()
        with self._endpoints.posting(PATH) as post:
            work = partial(self._converse, post, model)
            with closing(in_any_order(left, work, threads=self._concurrency, check=self._require_alive)) as outcomes:
                yield from outcomes

    def _converse(self, post: Post, model: str, asked: Asked) -> Outcome:
        def ask(messages: Messages, turn: int) -> Answer:
            try:
                return read_answer(post({"model": model, "messages": messages} | self._settings(asked.place, turn)))
            except RefusedByServer as refusal:
                if refusal.status in OF_THIS_REQUEST:
                    raise Refused(refusal.words) from refusal
                raise

        return converse(asked, ask)

    def _settings(self, place: int, turn: int) -> dict[str, Any]:
        sampling = self._sampling
        settings: dict[str, Any] = {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature}
        if sampling.temperature:
            settings["seed"] = sampling.seed_of(place, turn)
        if sampling.top_p is not None:
            settings["top_p"] = sampling.top_p
        return settings


def read_answer(response: Mapping[str, Any]) -> Answer:
    """Raises UsageError when it is not what OpenAI's protocol promises, or not a finished answer."""
    try:
        choice, tokens = response["choices"][0], response["usage"]["completion_tokens"]
        message, finish = choice["message"], choice["finish_reason"]
        reasoning = next((message[key] for key in REASONING if message.get(key)), None)
        answer = Answer(str(message["content"] or ""), str(finish), int(tokens), reasoning)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"a server's answer is no chat completion: {type(error).__name__} {error} in {str(response)[:200]}",
            hint="give the address of a server of OpenAI's protocol",
        ) from error
    if answer.finish_reason in UNFINISHED:
        raise UsageError(
            f"a server ended an answer before it was finished: {answer.finish_reason}",
            hint="run the same command when it serves again: it goes on",
        )
    return answer


def in_any_order(
    tasks: Iterable[Task], work: Callable[[Task], Result], *, threads: int, check: Callable[[], object]
) -> Generator[Result, None, None]:
    """Results as they come. The first failure is raised; ``check`` is called while nothing comes.

    The threads are daemons: an interrupt does not wait for what they wait for.
    """
    left, lock = iter(tasks), Lock()
    results: SimpleQueue[Future[Result] | None] = SimpleQueue()
    stopped = False

    def run() -> None:
        while not stopped:
            with lock:
                task = next(left, None)
            if task is None:
                break
            future: Future[Result] = Future()
            try:
                future.set_result(work(task))
            except BaseException as failure:
                future.set_exception(failure)
            results.put(future)
        results.put(None)

    for _ in range(threads):
        Thread(target=run, daemon=True).start()
    try:
        while threads:
            try:
                result = results.get(timeout=CHECK_SECONDS)
            except Empty:
                check()
                continue
            if result is None:
                threads -= 1
            else:
                yield result.result()
    finally:
        stopped = True
