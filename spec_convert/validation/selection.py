"""What whoever reads a report wants of it: which rules, and how bad each is to them. What was not seen always stays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from spec_convert.errors import UsageError, unknown_name
from spec_convert.findings import Checked, Depth, Finding, Level, Report, errors
from spec_convert.rules import RULES, found, sources

NOT_LOOKED_AT = frozenset(
    {rule.code for rule in sources.RULES} | {"level-not-reached", "not-evaluated", "verifier-unusable"}
)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Rules by code. ``select`` None: all of them; ``severity`` None: turned off, as by ``ignore``.

    ``strict``: warnings are errors.
    """

    select: frozenset[str] | None = None
    ignore: frozenset[str] = frozenset()
    severity: Mapping[str, Level | None] = field(default_factory=dict)
    strict: bool = False

    def __post_init__(self) -> None:
        """Raises UsageError for a rule that says that nothing was looked at: without it, silence would mean clean."""
        lowered = {rule for rule, level in self.severity.items() if level is not Level.ERROR}
        if kept := sorted(NOT_LOOKED_AT & (self.ignore | lowered)):
            raise UsageError(
                f"`{kept[0]}` cannot be left out: it says that something was not looked at, not what it is like",
                hint="leave the source out of the command instead, or mend it; --exit-zero makes findings pass",
            )

    def apply(self, finding: Finding) -> Finding | None:
        """The finding as it is to be reported, or None."""
        level = self.severity.get(finding.rule, finding.level)
        if level is Level.WARNING and self.strict:
            level = Level.ERROR
        wanted = self.select is None or finding.rule in self.select | NOT_LOOKED_AT
        return replace(finding, level=level) if level and wanted and finding.rule not in self.ignore else None

    def sets_aside(self, finding: Finding) -> bool:
        """Whether an error counts for less here, or for nothing."""
        after = self.apply(finding)
        return finding.level is Level.ERROR and (after is None or after.level is not Level.ERROR)


def apply(report: Report, selection: Selection) -> Report:
    """The report with what was selected, at the level that it was given.

    Errors end the look at a checkpoint. Where none of them is left, a finding says what was not looked at.
    """
    return replace(report, checked=tuple(_applied(checked, selection) for checked in report.checked))


def matching(patterns: Iterable[str]) -> frozenset[str]:
    """The rules that codes, or globs such as `hub-*`, stand for. Raises UsageError for what stands for none."""
    return frozenset(code for pattern in patterns for code in _matching(pattern))


def _matching(pattern: str) -> Collection[str]:
    codes = [code for code in RULES if fnmatchcase(code, pattern)]
    if not codes:
        raise unknown_name("rule", pattern, RULES, "spec-convert explain")
    return codes


def _applied(checked: Checked, selection: Selection) -> Checked:
    findings = [after for finding in checked.findings if (after := selection.apply(finding)) is not None]
    set_aside = tuple(dict.fromkeys(finding.rule for finding in checked.findings if selection.sets_aside(finding)))
    if checked.missed and not errors(findings):
        findings.append(_not_reached(checked, checked.missed, set_aside))
    return replace(checked, findings=tuple(findings), set_aside=set_aside)


def _not_reached(checked: Checked, missed: Depth, set_aside: Collection[str]) -> Finding:
    how = "only looked at in part" if missed is checked.reached else "not looked at"
    why = f", because of {', '.join(set_aside)}, which this report leaves out or counts for less" if set_aside else ""
    hint = "the same command without --ignore, --select and severities shows what ended the look" if set_aside else ""
    return found("level-not-reached", where=checked.source, message=f"level {missed} was {how}{why}", hint=hint)
