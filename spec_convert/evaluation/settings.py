"""What can be asked of an evaluation, whichever engine answers."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from spec_convert.errors import UsageError
from spec_convert.evaluation.prompt import Prompt

COLDEST = 0.01  # vLLM samples at this temperature when it is asked for a lower one


def require_usable(
    prompts: Sequence[Prompt], *, max_tokens: int, speculative_tokens: int | None, temperature: float
) -> None:
    """Raises UsageError for what no engine can measure."""
    if not prompts:
        raise UsageError("there are no prompts to answer", hint="name a file that holds some: --prompts FILE")
    if max_tokens < 1 or (speculative_tokens is not None and speculative_tokens < 1):
        raise UsageError(
            f"cannot draft {speculative_tokens} tokens at a time for answers of {max_tokens}", hint="1 or more"
        )
    if temperature and not (isfinite(temperature) and temperature >= COLDEST):
        raise UsageError(f"cannot sample at temperature {temperature}", hint=f"0 is greedy, {COLDEST} the least above")
