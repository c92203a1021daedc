"""Is a checkpoint right: everything that can be found wrong, at a level that costs as much as the user wants to pay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spec_convert.conversion import choose_verifier
from spec_convert.detection import Detection, recognise
from spec_convert.errors import Refused, Unreadable, UsageError
from spec_convert.findings import Checked, Depth, Finding, Report, errors
from spec_convert.formats import Request
from spec_convert.open import open_checkpoint
from spec_convert.plan import make_plan, with_any_layer_ids
from spec_convert.third_party import PluginFailed
from spec_convert.validation.acceptance import Exam, acceptance_findings, exam
from spec_convert.validation.as_served import served_findings, unrepaired
from spec_convert.validation.selection import Selection, apply
from spec_convert.validation.weights import weight_findings
from spec_convert.verifier import Verifier, open_verifier

if TYPE_CHECKING:
    from spec_convert.evaluation.measured import Engine
    from spec_convert.evaluation.prompt import Prompt


def validate(  # noqa: PLR0913  the contract of the command line, flag by flag
    source: str | Path | Sequence[str | Path],
    *,
    verifier: str | Path | None = None,
    level: str = "headers",
    prompts: str | Path | Sequence[Prompt] | None = None,
    min_acceptance_length: float | None = None,
    engine: Engine | None = None,
    limit: int | None = None,
    max_tokens: int | None = None,
    speculative_tokens: int | None = None,
    compare: bool | None = None,
    selection: Selection | None = None,
) -> Report:
    """Look for everything wrong with one or more checkpoints: unified directories or any known native format.

    A native checkpoint is judged by what converting it would find. With ``verifier`` the two must also fit together.
    Level `acceptance` lets each draft help its verifier to answer ``prompts``, and needs ``min_acceptance_length`` and
    a verifier, given or named by the draft; the arguments after these are those of `evaluate`, with its defaults, and
    mean nothing at other levels. ``selection``: which rules are reported, and how bad they are. Errors end the look at
    a checkpoint before its draft is run, except those that it sets aside.
    Problems of a checkpoint are findings in the report, never exceptions; an unreadable ``verifier`` raises Unreadable,
    what cannot be asked UsageError.
    """
    sources = [str(source)] if isinstance(source, str | Path) else [str(one) for one in source]
    if level not in list(Depth):
        raise UsageError(f"there is no level `{level}`", hint=f"one of {', '.join(Depth)}")
    depth = Depth(level)
    asked = exam(
        depth, prompts=prompts, min_acceptance_length=min_acceptance_length, engine=engine, limit=limit,
        max_tokens=max_tokens, speculative_tokens=speculative_tokens, compare=compare,
    )  # fmt: skip
    against = open_verifier(verifier) if verifier is not None else None
    chosen = selection or Selection()
    look = _Look(depth=depth, given=verifier, verifier=against, exam=asked, selection=chosen)
    if asked is not None and against is None:
        for one in sources:
            _require_own_verifier(one)
    return apply(Report(checked=tuple(look.at(one) for one in sources)), chosen)


def _require_own_verifier(source: str) -> None:
    """Raises UsageError when a draft that can be read does not say whose it is: before hours go into the others."""
    try:
        detection = recognise(open_checkpoint(source))
    except (Unreadable, Refused):
        return  # a finding, when it is this one's turn
    choose_verifier(detection, None)


@dataclass(frozen=True, kw_only=True)
class _Look:
    """How each checkpoint is looked at: as deep as was asked for, or until errors make going on pointless."""

    depth: Depth
    given: str | Path | None  # the verifier, as the user named it
    verifier: Verifier | None
    exam: Exam | None
    selection: Selection

    def at(self, source: str) -> Checked:
        name, unified, reached, whole = None, False, None, False
        found: list[Finding] = []
        try:
            detection = recognise(open_checkpoint(source))
            name, unified = detection.format, detection.winner.is_unified(detection.checkpoint)
            for reached, whole in self._levels(detection, source, found):  # noqa: B007  the last level is told
                pass
        except (Unreadable, Refused) as problem:
            found += problem.findings
        except PluginFailed as bug:
            found.append(bug.finding)
        missed = _first_missed(reached, self.depth) if whole else Depth.HEADERS
        return Checked(
            source=source, format=name, findings=tuple(found), reached=reached, missed=missed, unified=unified
        )

    def _levels(self, detection: Detection, source: str, found: list[Finding]) -> Iterator[tuple[Depth, bool]]:
        """Each level with whether all of it could be looked at: errors in the layout hide the config.

        What is ``found`` is added as it is seen: a level that breaks off has found something before.
        """
        verifier = self.verifier or (choose_verifier(detection, None) if self.exam else None)
        plan = make_plan(detection, Request(verifier=verifier))
        findings = plan.findings
        runs = plan if plan.config is not None or errors(findings) else with_any_layer_ids(plan)
        whole = runs.config is not None
        if detection.winner.is_unified(detection.checkpoint):
            findings = (*unrepaired(findings), *served_findings(plan))
        found += findings
        yield Depth.HEADERS, whole
        if self.depth is Depth.HEADERS:
            return
        for finding in weight_findings(plan):
            found.append(finding)
        yield Depth.TENSORS, whole
        if self.depth is Depth.TENSORS or self._ends(found) or not whole:
            return
        from spec_convert.forward import forward_findings

        found += forward_findings(runs)
        yield Depth.FORWARD, whole
        if self.exam and not self._ends(found):
            found += acceptance_findings(source, self.given, self.exam)
            yield Depth.ACCEPTANCE, whole

    def _ends(self, found: list[Finding]) -> bool:
        """Whether an error was found that nobody set aside."""
        return any(not self.selection.sets_aside(finding) for finding in errors(found))


def _first_missed(reached: Depth | None, wanted: Depth) -> Depth | None:
    levels = list(Depth)
    seen = 0 if reached is None else levels.index(reached) + 1
    return next(iter(levels[seen : levels.index(wanted) + 1]), None)
