"""One run of a pipeline: stage after stage, each recorded before it starts and when it has ended."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from spec_convert.errors import Exit, SpecConvertError
from spec_convert.narration import say
from spec_convert.training.pipeline.estimating import tokens_of
from spec_convert.training.pipeline.job import Job, jobs_of
from spec_convert.training.pipeline.planning import judge, move_aside
from spec_convert.training.pipeline.process import Ended, Heard, hearing, run
from spec_convert.training.pipeline.settings import Request
from spec_convert.training.pipeline.stages import NAMES, STAGES
from spec_convert.training.pipeline.things import draft_in
from spec_convert.training.record import Record, StageRecord, now, open_record
from spec_convert.training.trainer.folder import claimed

STOPPED = {-2: 130, -15: 143, 130: 130, 143: 143}  # exit codes of a stage that a signal ended, and ours then


class StageFailed(SpecConvertError):
    """A stage ended with another exit code than 0, which becomes ours."""

    def __init__(self, message: str, *, hint: str, code: int) -> None:
        super().__init__(message, hint=hint)
        self.code = code


@dataclass
class Running:
    """``forced``: the stages run whatever is there. ``again``: the command that goes on with this run.

    ``quiet``: stages narrate nothing. ``failed``: what went wrong, in order.
    """

    request: Request
    wanted: Sequence[str]
    forced: bool
    again: str
    quiet: bool = False
    ran: list[str] = field(default_factory=list)
    failed: list[StageFailed] = field(default_factory=list)

    @cached_property
    def record(self) -> Record:
        record = open_record(self.request.layout.record, "pipeline", self.request.said)
        for stage in STAGES:
            if self.request.wants(stage):
                record.of(stage.name)
        record.stages = {name: record.stages[name] for name in NAMES if name in record.stages}
        return record

    def run(self) -> int:
        """The exit code: 0, 128 and the signal that came, or that of the last stage that ``failed``.

        What is found to be wrong with the draft ends no run: the stages after that speak of it too. Raises UsageError
        before the start.
        """
        jobs = jobs_of(self.request, self.wanted)
        with claimed(self.request.layout.path, "pipeline"), hearing() as heard:
            self._leave_out()
            self.record.write(self.request.layout.record)
            for job in jobs:
                if heard.signal:
                    return self._stopped(job.stage.name, 128 + heard.signal)
                try:
                    code = self._one(job, heard)
                except StageFailed as failure:
                    self.failed.append(failure)
                    if not (job.stage.about and failure.code == Exit.FINDINGS):
                        break
                else:
                    if code:
                        return code
        return self.failed[-1].code if self.failed else Exit.CLEAN

    def made(self) -> list[tuple[str, str]]:
        """What there is now, and what to type next: names and values."""
        layout = self.request.layout
        done = [stage for stage in STAGES if (one := self.record.stages.get(stage.name)) and one.state == "done"]
        paths = [(stage.name, layout.path / path) for stage in done for path in self.record.of(stage.name).outputs]
        found = [(name, str(path)) for name, path in paths]
        draft = draft_in(layout.training, self.request)
        if draft.exists():
            found += [("draft", str(draft)), *_measured(layout.evaluation)]
            found += [("to serve", shlex.join(["spec-convert", "serve", str(draft)]))]
        return found

    def to_json(self) -> dict[str, Any]:
        layout = self.request.layout
        draft = draft_in(layout.training, self.request)
        return {
            "folder": str(layout.path), "ran": self.ran, "draft": str(draft) if draft.exists() else None,
            "stages": self.record.to_json()["stages"],
        }  # fmt: skip

    def _one(self, job: Job, heard: Heard) -> int:
        name, record = job.stage.name, self.record.of(job.stage.name)
        verdict = judge(job, record, forced=self.forced)
        if not verdict.runs:
            say(f"{name}: skipped, {verdict.why}")
            return Exit.CLEAN
        if verdict.anew:
            self._move_aside(job.stage.moves)
        self._forget_what_is_about(job)
        say(f"{name}: {verdict.why}")
        started = self._start(job, carried=None if verdict.anew else record.seconds)
        ended = run(started.command, self.request.layout.path / started.log, heard)
        self.ran.append(name)
        return self._ended(job, started, ended, heard)

    def _start(self, job: Job, *, carried: float | None) -> StageRecord:
        name = job.stage.name
        for path in (job.request.layout.path / one for one in job.stage.moves):
            path.parent.mkdir(parents=True, exist_ok=True)
        started = StageRecord(
            state="running", inputs=job.inputs(), command=tuple(job.command(quiet=self.quiet)), started=now(),
            seconds=carried, log=f"logs/{name}.log",
        )  # fmt: skip
        self._put(name, started)
        return started

    def _ended(self, job: Job, started: StageRecord, ended: Ended, heard: Heard) -> int:
        name = job.stage.name
        seconds = {"seconds": round((started.seconds or 0.0) + ended.seconds, 3)}
        stopped = 128 + heard.signal if heard.signal else STOPPED.get(ended.code, 0)
        if ended.code == 0:
            folder = self.request.layout.path
            paths = tuple(os.path.relpath(value, folder) for value in job.makes.values())
            if (content := job.makes.content()) is None:
                self._put(name, started.model_copy(update={**seconds, "state": "failed"}))
                raise self._failure(name, started, f"ended well and left no {', '.join(paths)}", code=Exit.UNUSABLE)
            done = {"state": "done", "outputs": paths, "content": content, "tokens": tokens_of(job)}
            self._put(name, started.model_copy(update=seconds | done))
        elif stopped:
            self._put(name, started.model_copy(update={**seconds, "state": "interrupted"}))
        else:
            self._put(name, started.model_copy(update={**seconds, "state": "failed"}))
            code = ended.code if ended.code > 0 else 128 - ended.code
            raise self._failure(name, started, f"failed with exit code {code}", code=code)
        return self._stopped(name, stopped) if ended.code and stopped else Exit.CLEAN

    def _stopped(self, name: str, code: int) -> int:
        say(f"Interrupted at {name}. To go on: {self.again}")
        return code

    def _failure(self, name: str, started: StageRecord, what: str, *, code: int) -> StageFailed:
        log = self.request.layout.path / started.log
        alone = shlex.join(started.command)
        return StageFailed(
            f"the stage {name} {what}; its log is {log}; its command: {alone}",
            hint=f"to go on, once that is mended: {self.again}", code=code,
        )  # fmt: skip

    def _leave_out(self) -> None:
        """What was made by stages that are not asked for any more would be taken for a part of this run."""
        for stage in STAGES:
            idle = stage.name in self.wanted and not self.request.wants(stage)
            if idle and stage.name in self.record.stages:
                del self.record.stages[stage.name]
                self._move_aside(stage.moves)

    def _forget_what_is_about(self, job: Job) -> None:
        """What other stages have said of what this one had made: a run may end before they say it anew."""
        for stage in STAGES:
            makers = {job.things[name].made_by for name in stage.reads if name in job.things}
            if stage.about and job.stage.name in makers:
                self._move_aside(stage.moves)
                if stage.name in self.record.stages:
                    self.record.stages[stage.name] = StageRecord(state="waiting")

    def _move_aside(self, names: Sequence[str]) -> None:
        if move_aside(self.request.layout.path, names, self._aside):
            say(f"What was there, {', '.join(names)}, is kept in {self._aside}")

    @cached_property
    def _aside(self) -> Path:
        places = (self.request.layout.path / f"replaced-{number}" for number in count(1))
        return next(place for place in places if not place.exists())

    def _put(self, name: str, stage: StageRecord) -> None:
        self.record.stages[name] = stage
        self.record.write(self.request.layout.record)


def _measured(evaluation: Path) -> list[tuple[str, str]]:
    if not evaluation.exists():
        return []
    tau = json.loads(evaluation.read_text(encoding="utf-8"))["mean_acceptance_length"]
    return [("tau", f"{tau:.3f} tokens per verifier pass, its own bonus token included")]
