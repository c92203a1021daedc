"""Which stages run, and why: what is done, with the same inputs, and still there as it was left, is skipped."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from spec_convert.errors import UsageError, unknown_name
from spec_convert.training.pipeline.job import Job
from spec_convert.training.pipeline.settings import Request
from spec_convert.training.pipeline.stages import NAMES, STAGES, Stage
from spec_convert.training.record import StageRecord

GOES_ON = {"running": "killed", "interrupted": "interrupted"}  # the states of which the same command goes on


@dataclass(frozen=True, slots=True)
class Verdict:
    """``anew``: what is there of an earlier run is moved aside first. ``why`` it runs, or does not."""

    runs: bool
    why: str
    anew: bool = False


def chosen(request: Request, *, first: str | None, last: str | None, only: str | None) -> tuple[str, ...]:
    """The names of the stages from ``first`` to ``last``, in order. Raises UsageError when there is nothing to do."""
    for name in (first, last, only):
        if name is not None and name not in NAMES:
            raise unknown_name("stage", name, NAMES, "spec-convert pipeline --help")
    if only and (first or last):
        raise UsageError("--only is for one stage alone", hint="leave it out, or --from and --to")
    begin, end = NAMES.index(only or first or NAMES[0]), NAMES.index(only or last or NAMES[-1])
    if begin > end:
        raise UsageError(f"{last} comes before {first}", hint=f"the order is {', '.join(NAMES)}")
    found = STAGES[begin : end + 1]
    if not any(request.wants(stage) for stage in found):
        hint = f"add {tables_without(request, found[0])} to the file of the run"
        raise UsageError(f"{found[0].name}: {nobody_asks(request, found[0])}", hint=hint)
    return NAMES[begin : end + 1]


def nobody_asks(request: Request, stage: Stage) -> str:
    return f"nobody asks for it: there is no {tables_without(request, stage)}"


def tables_without(request: Request, stage: Stage) -> str:
    return ", ".join(f"[{table}]" for table in request.missing(stage))


def judge(job: Job, record: StageRecord, *, forced: bool, remade: Collection[str] = ()) -> Verdict:
    """``forced``: run it whatever is there, unless it has begun so and was interrupted.

    ``remade``: the stages that are to run before, of whose results nothing is known yet. Raises UsageError.
    """
    makers = {job.things[name].made_by for name in job.reads}
    if before := [name for name in NAMES if name in remade and name in makers]:
        return Verdict(True, f"{before[0]} runs", anew=bool(record.inputs))
    same = record.inputs == job.inputs()
    if same and record.state in GOES_ON:
        return Verdict(True, f"goes on: it was {GOES_ON[record.state]}")
    if forced:
        return Verdict(True, "asked for", anew=True)
    if record.inputs and not same:
        return Verdict(True, "its options or what it reads have changed", anew=True)
    return _with_the_same_inputs(job, record) if same else _unrecorded(job)


def _with_the_same_inputs(job: Job, record: StageRecord) -> Verdict:
    if record.state != "done":
        return Verdict(True, f"it has {record.state}")
    if record.content == (there := job.makes.content()):
        return Verdict(False, "done")
    return Verdict(True, "what it made is gone" if there is None else "what it made was changed", anew=True)


def _unrecorded(job: Job) -> Verdict:
    """The verb goes on with what is there, if it is the same that is asked for, and refuses it otherwise."""
    there = any((job.request.layout.path / name).exists() for name in job.stage.moves)
    return Verdict(True, "goes on with what is there, of which nothing is recorded" if there else "not done yet")


def move_aside(folder: Path, names: Collection[str], place: Path) -> bool:
    """Move what is there of ``names`` in ``folder`` to ``place``; False: there was nothing."""
    there = [name for name in names if (folder / name).exists()]
    for name in there:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).rename(place / name)
    return bool(there)
