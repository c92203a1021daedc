"""Who answers: servers that run already, or an engine of our own for as long as there is something to ask."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.serving.versions import installed
from spec_convert.training.capture.identity import identity_of
from spec_convert.training.regeneration.conversing import Sampling
from spec_convert.training.regeneration.engine import AnsweringEngine
from spec_convert.training.regeneration.server_engine import ServerEngine
from spec_convert.training.servers.endpoints import Endpoints
from spec_convert.training.servers.local_server import free_port, running, vllm_command
from spec_convert.verifier import Verifier, open_verifier


@dataclass(frozen=True, slots=True)
class Pace:
    """``concurrency``: conversations at work at once. ``patience``: seconds for an answer, and for servers away."""

    concurrency: int
    patience: float


@dataclass(frozen=True, slots=True)
class Answerer:
    """``model``: its name, and whatever else tells it from another one. ``open``: takes as long as loading it does."""

    model: Mapping[str, str]
    open: Callable[[], AbstractContextManager[AnsweringEngine]]


def behind_endpoints(urls: Sequence[str], sampling: Sampling, *, verifier: str | None, pace: Pace) -> Answerer:
    """The model that the servers at ``urls`` serve, which must be called ``verifier`` if that is given.

    Raises UsageError.
    """
    key = os.environ.get("OPENAI_API_KEY")
    endpoints = Endpoints(urls, concurrency=pace.concurrency, patience=pace.patience, api_key=key)
    served = endpoints.model()
    if verifier is not None and served not in (verifier, os.path.abspath(verifier)):
        raise UsageError(
            f"the servers call their model {served}, not {verifier}",
            hint="if it is the same, leave --verifier out, or start them with --served-model-name",
        )
    return Answerer(
        {"model": served}, lambda: nullcontext(ServerEngine(endpoints, sampling, concurrency=pace.concurrency))
    )


def on_this_machine(
    verifier: str | None, sampling: Sampling, *, engine: str | None, llm_args: Mapping[str, Any], pace: Pace
) -> Answerer:
    """The verifier in a vLLM of its own, or in transformers. ``engine`` None: vllm when it is installed.

    Raises UsageError.
    """
    if verifier is None:
        raise UsageError("nobody is named who answers", hint="name the model: --verifier BASE, or a server: --endpoint")
    opened = open_verifier(verifier)
    model = {"model": opened.name, "weights": identity_of(opened)}
    if engine == "vllm" or (engine is None and installed()):
        port = free_port()
        command = vllm_command(opened, llm_args, port=port)
        return Answerer(model, partial(_vllm, command, port, sampling, pace))
    if llm_args:
        raise UsageError("--llm-arg is for vLLM, and transformers answers", hint="take --engine vllm, or leave it out")
    return Answerer(model, partial(_transformers, opened, sampling, batch=pace.concurrency))


@contextmanager
def _vllm(command: Sequence[str], port: int, sampling: Sampling, pace: Pace) -> Iterator[AnsweringEngine]:
    with running(command, port=port) as server:
        key = os.environ.get("VLLM_API_KEY")  # which vLLM then wants
        endpoints = Endpoints([server.url], concurrency=pace.concurrency, patience=pace.patience, api_key=key)
        yield ServerEngine(endpoints, sampling, concurrency=pace.concurrency, require_alive=server.require_alive)


@contextmanager
def _transformers(verifier: Verifier, sampling: Sampling, *, batch: int) -> Iterator[AnsweringEngine]:
    from spec_convert.training.regeneration.transformers_engine import open_transformers

    yield open_transformers(verifier, sampling, batch=batch)
