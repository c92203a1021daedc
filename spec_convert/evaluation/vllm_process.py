"""Has one vLLM, in a process of its own, answer the prompts of a measurement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.serving.process import command_of, started

COMMAND = command_of("spec_convert.evaluation.vllm_worker")


def run(request: Mapping[str, Any], *, on_progress: Callable[[int], object], verbose: bool) -> dict[str, Any]:
    """What `vllm_worker` answers to ``request``. Raises UsageError, which names vLLM's own reason and its log."""
    with started(COMMAND, verbose=verbose) as process:
        process.send(request)
        while "answered" in (message := process.receive()):
            on_progress(message["answered"])
    if "refused" in message:
        raise UsageError(message["refused"], hint="measure with --temperature 0, or with --engine transformers")
    result: dict[str, Any] = message["result"]
    return result
