"""Layer ids of which the files do not tell what they count, inputs of layers or outputs: measuring tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spec_convert.doctor.diagnosis import Diagnosis, Tried
    from spec_convert.findings import Finding
    from spec_convert.formats import Counting

ASPECT, ONE_UP = "layer ids", "aux-ids-one-up"  # of hypotheses
RULE = "aux-layer-ids"  # of what is said of such ids, and of ids that can be read in no way


def only_open(errors: list[Finding]) -> bool:
    return all(finding.rule == RULE for finding in errors)


def counting(diagnosis: Diagnosis) -> Counting | None:
    """What the ids count that were taken for those of inputs ("boundary"). None: these rows do not tell."""
    found = [cause.hypothesis.code for cause in diagnosis.causes if cause.hypothesis.aspect == ASPECT]
    if found:
        return "output" if found == [ONE_UP] else None
    otherwise = [one for one in diagnosis.tried if one.hypothesis.code == ONE_UP]
    told = not otherwise or otherwise[-1].gain.loses
    return "boundary" if told and diagnosis.verdict != "lost" else None


def flags(cause: Tried, counted: Counting | None) -> tuple[str, ...] | None:
    """Those of the cause's fix, but ids that were left open are given by what they count."""
    if counted == "output" and cause.hypothesis.aspect == ASPECT:
        return "--aux-layer-convention", counted
    return cause.hypothesis.fix.flags
