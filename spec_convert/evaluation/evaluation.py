"""The verb `evaluate`: how well any draft drafts for its verifier, measured with one of the two engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from spec_convert.errors import UsageError, unknown_name
from spec_convert.evaluation.measured import Engine, Measured
from spec_convert.evaluation.prompt import Prompt
from spec_convert.evaluation.prompts import read_prompts
from spec_convert.evaluation.rows import INSTALL
from spec_convert.evaluation.settings import require_usable

ENGINES: tuple[Engine, ...] = get_args(Engine)


def evaluate(  # noqa: PLR0913  the contract of the command line, flag by flag
    source: str | Path,
    prompts: str | Path | Sequence[Prompt],
    *,
    verifier: str | Path | None = None,
    engine: Engine = "transformers",
    max_tokens: int = 256,
    limit: int | None = None,
    speculative_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    dtype: str | None = None,
    compare: bool = True,
    llm_args: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> Measured:
    """Let the draft at ``source``, in any layout, help its verifier to answer ``prompts``, and count.

    ``source`` and ``verifier`` are folders or Hub ids; ``verifier`` may be left out when the draft names its own.
    ``prompts`` are a file or dataset (see `read_prompts`), of which the first ``limit`` are taken. ``max_tokens``
    bounds each answer. ``speculative_tokens`` defaults to what the draft's config says, ``dtype`` to float32 for the
    engine transformers and to vLLM's own choice for vLLM. ``compare`` also runs the verifier alone: without it there
    is no speed-up and no word on losslessness. ``llm_args`` (further arguments of vLLM's `LLM`) and ``verbose`` (its
    own output on stderr) are for the engine vllm. Raises Unreadable, Refused or UsageError.
    """
    from spec_convert.servable import servable

    if llm_args and engine != "vllm":
        raise UsageError("arguments for vLLM's LLM do nothing in another engine", hint="add --engine vllm")
    if verbose and engine != "vllm":
        raise UsageError("--verbose shows what vLLM prints, and this is another engine", hint="add --engine vllm")
    prompts = usable_prompts(
        prompts, engine=engine, limit=limit, max_tokens=max_tokens, speculative_tokens=speculative_tokens,
        temperature=temperature,
    )  # fmt: skip
    drafted = servable(source, verifier=verifier)
    settings: dict[str, Any] = {
        "max_tokens": max_tokens,
        "speculative_tokens": speculative_tokens,
        "temperature": temperature,
        "seed": seed,
        "alone": compare,
    } | ({"dtype": dtype} if dtype else {})
    if engine == "vllm":
        from spec_convert.evaluation import vllm_engine

        measured = vllm_engine.measure(drafted, prompts, **settings, llm_args=llm_args, verbose=verbose)
    else:
        from spec_convert.evaluation import transformers_engine

        measured = transformers_engine.measure(drafted, prompts, **settings)
    if not measured.drafts:  # an acceptance of 0 would look like a draft that is never right
        raise UsageError(
            "nothing was measured: every answer ended with its first token, which needs no draft",
            hint="give other prompts, or a larger --max-tokens",
        )
    return measured


def usable_prompts(  # noqa: PLR0913  of what `evaluate` takes, all that can be refused at once
    prompts: str | Path | Sequence[Prompt],
    *,
    engine: Engine = "transformers",
    limit: int | None = None,
    max_tokens: int = 256,
    speculative_tokens: int | None = None,
    temperature: float = 0.0,
) -> Sequence[Prompt]:
    """The prompts, read, once it is clear that they can be answered so: before any draft is opened.

    Raises UsageError.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES, "spec-convert evaluate --help")
    if limit is not None and limit < 1:
        raise UsageError(f"cannot take the first {limit} prompts", hint="1 or more")
    _require(engine)
    prompts = read_prompts(prompts, limit=limit) if isinstance(prompts, str | Path) else prompts[:limit]
    require_usable(prompts, max_tokens=max_tokens, speculative_tokens=speculative_tokens, temperature=temperature)
    return prompts


def _require(engine: Engine) -> None:
    """Before a draft is converted and prompts are read: what is not installed will not come."""
    from importlib.util import find_spec

    from spec_convert.serving.versions import require_vllm

    if engine == "vllm":
        require_vllm()
    elif find_spec("transformers") is None:
        raise UsageError("transformers is not installed", hint=INSTALL)
