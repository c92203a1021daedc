"""The level `acceptance`: the draft helps its verifier to answer prompts, and must be accepted often enough."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_convert.errors import Refused, UsageError
from spec_convert.findings import Depth, Finding, plural
from spec_convert.rules import found

if TYPE_CHECKING:
    from spec_convert.evaluation.measured import Measured
    from spec_convert.evaluation.prompt import Prompt

ASKED = ("prompts", "min_acceptance_length", "engine", "limit", "max_tokens", "speculative_tokens", "compare")
LONE = 1.0  # what a draft reaches that is never right: each pass of the verifier gives one token by itself


@dataclass(frozen=True, kw_only=True)
class Exam:
    """What every draft is asked, and how often its tokens must be accepted. ``settings`` are those of `evaluate`."""

    prompts: Sequence[Prompt]
    source: str | None  # of the prompts, to be typed again
    least: float
    settings: Mapping[str, Any]


def exam(
    level: Depth, *, prompts: str | Path | Sequence[Prompt] | None, min_acceptance_length: float | None, **settings: Any
) -> Exam | None:
    """What level `acceptance` is to ask, its prompts read; None at other levels. What is None was not given.

    Raises UsageError for what cannot be asked, before any draft is opened.
    """
    require_complete(level, prompts=prompts, min_acceptance_length=min_acceptance_length, **settings)
    if prompts is None or min_acceptance_length is None:
        return None
    given = {name: value for name, value in settings.items() if value is not None}

    from spec_convert.evaluation.evaluation import usable_prompts

    asked = {name: given[name] for name in ("engine", "limit", "max_tokens", "speculative_tokens") if name in given}
    return Exam(
        prompts=usable_prompts(prompts, **asked),
        source=str(prompts) if isinstance(prompts, str | Path) else None,
        least=min_acceptance_length,
        settings=given,
    )


def require_complete(level: Depth, **asked: Any) -> None:
    """Raises UsageError when level `acceptance` lacks what it needs, or another one is given what means nothing there.

    ``asked``: by the names in `ASKED`; None was not given.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if level is not Depth.ACCEPTANCE:
        _refuse_idle(list(given), level)
        return
    flags = {"prompts": "--prompts FILE", "min_acceptance_length": "--min-acceptance-length X"}
    if missing := " and ".join(flag for name, flag in flags.items() if name not in given):
        raise UsageError(f"level acceptance needs {missing}", hint="what is to be answered, and how well")
    _require_threshold(given["min_acceptance_length"], given.get("speculative_tokens"))


def acceptance_findings(source: str, verifier: str | Path | None, exam: Exam) -> list[Finding]:
    """What letting the draft at ``source`` draft shows. Raises Unreadable, or Refused when it cannot be let."""
    from spec_convert.evaluation.evaluation import evaluate

    try:
        measured = evaluate(source, exam.prompts, verifier=verifier, **exam.settings)
    except UsageError as problem:  # of this draft and its verifier: the others are still to be looked at
        failed = found("not-evaluated", where=source, message=problem.message, hint=problem.hint)
        raise Refused([failed]) from problem
    return _judged(measured, source, verifier, exam)


def _judged(measured: Measured, source: str, verifier: str | Path | None, exam: Exam) -> list[Finding]:
    tau = measured.mean_acceptance_length
    positions = ", ".join(f"{share:.3f}" for share in measured.acceptance_per_position)
    over = (
        f"{plural(measured.drafts, 'draft')} of {plural(measured.speculative_tokens, 'token')} in "
        f"{plural(measured.answers, 'answer')}"
    )
    findings = [
        found(
            "acceptance-measured", where=source,
            message=f"mean acceptance length {tau:.3f} over {over} with {measured.engine}; by position {positions}",
        )
    ]  # fmt: skip
    if tau < exam.least:
        findings.append(
            found(
                "acceptance-too-low", where=source, hint=_look_closer(measured, source, verifier, exam),
                message=f"mean acceptance length {tau:.3f}, below {exam.least:g}; accepted by position: {positions}",
            )
        )  # fmt: skip
    if measured.lossless is False:
        wrong = sum(not difference.tie for difference in measured.differences or ())
        findings.append(
            found(
                "not-lossless", where=source,
                message=f"{wrong} of {plural(measured.answers, 'answer')} are not the verifier's own text",
                hint="no draft can change greedy text: the engine, or its settings, are at fault",
            )
        )  # fmt: skip
    return findings


def _look_closer(measured: Measured, source: str, verifier: str | Path | None, exam: Exam) -> str:
    if exam.least > measured.speculative_tokens + 1:
        most = measured.speculative_tokens + 1
        return f"with {plural(most - 1, 'token')} at a time no draft gives more than {most}: add --speculative-tokens"
    base = () if verifier is None else ("--verifier", str(verifier))
    command = ("spec-convert", "evaluate", source, *base, "--prompts", exam.source or "FILE", "--report", "page.html")
    return f"`{shlex.join(command)}` shows at which position, and for which share of the drafts"


def _refuse_idle(names: Sequence[str], level: Depth) -> None:
    """An option that nothing heeds would let somebody believe that it was."""
    if names:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        raise UsageError(
            f"{flags}: level {level} measures no acceptance", hint="add --level acceptance, or leave it out"
        )


def _require_threshold(least: float, tokens: int | None) -> None:
    if not (isfinite(least) and least > LONE):
        raise UsageError(
            f"a mean acceptance length of {least:g} asks for nothing: without any draft it is 1",
            hint="more than 1; what a draft reaches today, less a little, is a good start",
        )
    if tokens is not None and least > tokens + 1:
        raise UsageError(
            f"a mean acceptance length of {least:g} is out of reach with {plural(tokens, 'token')} at a time",
            hint=f"at most {tokens + 1}",
        )
