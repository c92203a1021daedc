"""What `pipeline --dry-run` says: each stage, why it runs or not, what it reads and writes, its size and its time."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from spec_convert.training.capture.estimate import readable
from spec_convert.training.pipeline.estimating import Estimate, Estimator
from spec_convert.training.pipeline.job import Job, jobs_of
from spec_convert.training.pipeline.planning import Verdict, judge, nobody_asks
from spec_convert.training.pipeline.settings import Request
from spec_convert.training.pipeline.stages import STAGES
from spec_convert.training.record import open_record

UNKNOWN = Estimate()


@dataclass(frozen=True, slots=True)
class Row:
    """``job``: None for a stage that this run does not have."""

    name: str
    verdict: Verdict
    job: Job | None = None
    estimate: Estimate = UNKNOWN

    def to_json(self) -> dict[str, Any]:
        job, estimate = self.job, self.estimate
        return {
            "stage": self.name, "runs": self.verdict.runs, "why": self.verdict.why,
            "reads": [value for name in job.reads for value in job.things[name].values()] if job else [],
            "writes": list(job.makes.values()) if job else [], "bytes": estimate.bytes, "seconds": estimate.seconds,
            "basis": estimate.basis, "command": job.command() if job else [],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planned:
    request: Request
    stages: Sequence[Row]

    def to_json(self) -> dict[str, Any]:
        return {"folder": str(self.request.layout.path), "stages": [row.to_json() for row in self.stages]}

    def rows(self) -> Iterator[tuple[str, ...]]:
        for row in self.stages:
            size = "unknown" if row.estimate.bytes is None else readable(row.estimate.bytes)
            state = "runs" if row.verdict.runs else "skipped" if row.job else "no"
            shown = (size, _time(row.estimate)) if row.verdict.runs else (size if row.job else "", "")
            yield row.name, state, *shown, row.verdict.why

    def lines(self) -> Iterator[str]:
        """What each stage that runs reads and writes, and its command."""
        folder = self.request.layout.path
        for row in self.stages:
            if row.job and row.verdict.runs:
                reads = [value for name in row.job.reads for value in row.job.things[name].values()]
                shown = ", ".join(_within(value, folder) for value in reads)
                yield f"{row.name}: {shown} -> {', '.join(_within(one, folder) for one in row.job.makes.values())}"
                yield f"  {shlex.join(row.job.command())}"
        if any(row.verdict.runs and row.estimate.basis == "rough" for row in self.stages):
            yield "~ is rough: weights times tokens, at the speed of a matrix product on this machine"


def overview(request: Request, wanted: Sequence[str], *, forced: bool) -> Planned:
    """Nothing is run or written. Raises UsageError as a run would before its first stage."""
    record = open_record(request.layout.record, "pipeline", request.said)
    jobs = {job.stage.name: job for job in jobs_of(request, wanted)}
    remade: set[str] = set()
    rows = []
    for stage in STAGES:
        if stage.name not in wanted:
            continue
        if (job := jobs.get(stage.name)) is None:
            rows.append(Row(stage.name, Verdict(False, nobody_asks(request, stage))))
            continue
        known = record.of(stage.name)
        verdict = judge(job, known, forced=forced, remade=remade)
        if verdict.runs:
            estimate = Estimator(tuple(jobs.values()), frozenset(remade), record.stages).of(job)
            remade.add(stage.name)
        else:
            estimate = Estimate(sum(map(_on_disk, map(Path, job.makes.values()))))
        rows.append(Row(stage.name, verdict, job, estimate))
    return Planned(request, rows)


def _on_disk(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())


def _time(estimate: Estimate) -> str:
    if estimate.seconds is None:
        return "unknown"
    minutes, seconds = divmod(ceil(estimate.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
    return f"~{shown}" if estimate.basis == "rough" else shown


def _within(value: str, folder: Path) -> str:
    """A path in the run's folder by its name there."""
    return os.path.relpath(value, folder) if Path(value).is_relative_to(folder) and value != str(folder) else value
