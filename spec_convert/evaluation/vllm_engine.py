"""Measures a draft with a real vLLM: its offline `LLM`, once with the draft and once without, and its own counters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.evaluation import vllm_process
from spec_convert.evaluation.measured import Difference, Measured, Speed
from spec_convert.evaluation.prompt import Prompt
from spec_convert.evaluation.settings import require_usable
from spec_convert.evaluation.ties import is_tie
from spec_convert.narration import progress, say
from spec_convert.servable import Servable
from spec_convert.serving.command import require_plugin
from spec_convert.serving.speculative import llm_arguments, verifier_arguments
from spec_convert.serving.versions import TESTED, require_vllm, untested_warning

OURS = {
    "model": "DRAFT and --verifier",
    "tokenizer": "--verifier",
    "speculative_config": "DRAFT and --speculative-tokens",
    "dtype": "--dtype",
    "revision": "--verifier BASE@REVISION",
    "tokenizer_revision": "--verifier BASE@REVISION",
    "disable_log_stats": "nobody: the counters are needed",
    "logprobs_mode": "nobody: the logits are needed",
}


def measure(  # noqa: PLR0913  what `evaluate` decides, one by one
    drafted: Servable,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    speculative_tokens: int | None,
    temperature: float,
    seed: int,
    alone: bool,
    dtype: str = "auto",
    llm_args: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> Measured:
    """Answer ``prompts`` with vLLM and the draft, and count. All prompts are given to it at once, turn after turn.

    ``speculative_tokens`` None: as many as the draft's config says. ``alone``: a second engine answers without the
    draft, for its speed and, with greedy decoding, to compare the texts. ``llm_args`` are further arguments of
    vLLM's `LLM`; ``verbose`` lets what it prints through to stderr. Raises UsageError.
    """
    tokens = drafted.speculative_tokens if speculative_tokens is None else speculative_tokens
    require_usable(prompts, max_tokens=max_tokens, speculative_tokens=tokens, temperature=temperature)
    require_vllm()
    require_plugin(drafted)
    if warning := untested_warning():
        say(warning)
    llm = _engine_arguments(llm_args or {}, dtype)
    request: dict[str, Any] = {
        "conversations": [{"system": prompt.system, "turns": prompt.turns} for prompt in prompts],
        "sampling": {"temperature": temperature, "max_tokens": max_tokens},
        "seed": seed,
        "reference": None,
    }
    say("vLLM with the draft")
    served = _run(request | {"llm": llm | llm_arguments(drafted, speculative_tokens=tokens)}, verbose=verbose)
    own = None
    if alone:
        say("vLLM without it")
        without = llm | verifier_arguments(drafted) | {"logprobs_mode": "raw_logits"}
        own = _run(request | {"llm": without, "reference": served["answers"]}, verbose=verbose)
    return Measured(
        engine="vllm",
        draft=drafted.draft,
        verifier=drafted.verifier.name,
        speculative_tokens=tokens,
        temperature=temperature,
        prompts=len(prompts),
        answers=sum(map(len, served["answers"])),
        drafts=served["drafts"],
        accepted=_accepted(served, tokens),
        alpha=None,
        with_draft=_speed(served),
        verifier_alone=_speed(own) if own else None,
        differences=_differences(own, prompts) if own else None,
        versions={"spec-convert": version("spec-convert")} | served["versions"],
    )


def _engine_arguments(given: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    for name in given:
        if name in OURS:
            raise UsageError(f"`{name}` is no argument to give to vLLM here", hint=f"it is decided by {OURS[name]}")
    return {**given, "dtype": dtype, "disable_log_stats": False}


def _run(request: Mapping[str, Any], *, verbose: bool) -> dict[str, Any]:
    answers = sum(len(one["turns"]) for one in request["conversations"])
    with progress(answers, unit="answer") as done:
        return vllm_process.run(request, on_progress=done, verbose=verbose)


def _accepted(served: Mapping[str, Any], tokens: int) -> tuple[int, ...]:
    """[K]. Counters that are not there would read as a draft that is never right."""
    longest = max(len(answer["token_ids"]) for turns in served["answers"] for answer in turns)
    if not served["drafts"] and longest > tokens + 1:
        raise UsageError("this vLLM does not say how many drafts it made", hint=f"use one of {', '.join(TESTED)}")
    counted = served["accepted"][:tokens]
    return (*counted, *[0] * (tokens - len(counted)))


def _speed(ran: Mapping[str, Any]) -> Speed:
    tokens = sum(len(answer["token_ids"]) for turns in ran["answers"] for answer in turns)
    return Speed(tokens=tokens, seconds=ran["seconds"])


def _differences(own: Mapping[str, Any], prompts: Sequence[Prompt]) -> tuple[Difference, ...] | None:
    """None when the texts were sampled. Answers are counted conversation after conversation."""
    if own["partings"] is None:
        return None
    before = list(accumulate((len(prompt.turns) for prompt in prompts), initial=0))
    return tuple(
        _difference(parting, before[parting["conversation"]] + parting["turn"], own["dtype"])
        for parting in own["partings"]
    )


def _difference(parting: Mapping[str, Any], answer: int, dtype: str) -> Difference:
    logits: tuple[float, float] | None = tuple(parting["logits"]) if parting["logits"] else None
    return Difference(
        answer=answer,
        position=parting["position"],
        with_draft=parting["with_draft"],
        verifier=parting["verifier"],
        logits=logits,
        tie=logits is not None and is_tie(*logits, dtype),
    )
