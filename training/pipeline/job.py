"""A stage as it stands in one run: its command, and by what it is known whether it is done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_convert.errors import UsageError
from spec_convert.training.pipeline.checks import CHECKS, train_settings
from spec_convert.training.pipeline.choices import layers_to_capture
from spec_convert.training.pipeline.content import content_of
from spec_convert.training.pipeline.interpreters import gpus_of, interpreter, require_usable
from spec_convert.training.pipeline.options import parsed, words_of
from spec_convert.training.pipeline.settings import Request
from spec_convert.training.pipeline.stages import STAGES, Stage, things_in
from spec_convert.training.pipeline.things import Thing, things_of
from spec_convert.training.recipes import RECIPES

if TYPE_CHECKING:
    from spec_convert.training.settings import TrainSettings

LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
PROGRAM = ("-m", "spec_convert")
QUIET = ("--quiet",)


@dataclass(frozen=True)
class Job:
    stage: Stage
    request: Request
    things: Mapping[str, Thing]

    @cached_property
    def options(self) -> dict[str, Any]:
        given = self.request.options(self.stage)
        if self.stage.verb == "generate" and (layers := layers_to_capture(self.request)):
            return {"layers": list(layers), **given}
        return given

    @property
    def words(self) -> list[str]:
        """Those of the verb, with what stands for each thing by now."""
        groups = [group for group in self.stage.words if all(name in self.things for name in things_in(group))]
        found = [word for group in groups for text in group for word in self._words(text)]
        return [*found, *words_of(self.stage, self.options)]

    @property
    def params(self) -> Mapping[str, Any]:
        """What the verb makes of its words. Raises UsageError."""
        return parsed(self.stage, self.words)

    @cached_property
    def params_of_training(self) -> TrainSettings:
        return train_settings(self.params)

    def command(self, *, quiet: bool = False) -> list[str]:
        words, processes = self.words, self.processes
        launcher = () if processes is None else (*LAUNCHER, str(processes))
        if processes is not None and "parallel" not in self.options:
            words += ["--parallel", "ddp"]
        return [self.python, *launcher, *PROGRAM, *(QUIET if quiet else ()), self.stage.verb, *words]

    @property
    def python(self) -> str:
        return interpreter(self.request.python(self.stage))

    @property
    def processes(self) -> int | None:
        """How many torchrun starts; None: it is not needed."""
        if not self.stage.launched:
            return None
        asked = self.request.processes(self.stage)
        count = asked or (1 if "device" in self.options else max(1, gpus_of(self.python)))
        return count if count > 1 or "parallel" in self.options else None

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for name in self.stage.reads if name in self.things)

    @property
    def makes(self) -> Thing:
        return self.things[self.stage.makes]

    @property
    def makers(self) -> list[Job]:
        """The stages that make what it reads."""
        names = {self.things[name].made_by for name in self.reads}
        return [Job(stage, self.request, self.things) for stage in STAGES if stage.name in names]

    def inputs(self) -> str:
        """A digest of all that decides what comes out. Raises UsageError when something that it needs is not there."""
        reads = {name: self.things[name].content() for name in self.reads}
        for name, content in reads.items():
            if content is None and name not in self.stage.also:
                raise UsageError(
                    f"the stage {self.stage.name} reads {self.things[name].values()[0]}, which is not there",
                    hint=f"begin with --from {self._first_maker(name)}",
                )
        decide = {key: value for key, value in self.options.items() if key not in self.stage.harmless}
        decide |= {key: content_of(Path(decide[key])) or decide[key] for key in self.stage.files if key in decide}
        asked = self.request.processes(self.stage)
        parts = [self.stage.name, decide, reads, asked, version("spec-convert")]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def _first_maker(self, name: str) -> str:
        """The stage to begin with, so that a thing which is not there is made, and what that takes."""
        maker = next(job for job in self.makers if job.stage.name == self.things[name].made_by)
        absent = (read for read in maker.reads if self.things[read].made_by and self.things[read].content() is None)
        return next((maker._first_maker(read) for read in absent), maker.stage.name)

    def _words(self, text: str) -> Sequence[str]:
        names = things_in([text])
        if not names:
            return [text]
        return [text.replace(f"{{{names[0]}}}", value) for value in self.things[names[0]].values()]


def jobs_of(request: Request, wanted: Sequence[str]) -> list[Job]:
    """Those of the ``wanted`` stages that this request has, in order, once all of them are known to be possible.

    Raises UsageError.
    """
    things = things_of(request)
    jobs = [Job(stage, request, things) for stage in STAGES if stage.name in wanted and request.wants(stage)]
    require_sources(request)
    require_no_idle_table(request)
    for job in jobs:
        params = job.params
        if check := CHECKS.get(job.stage.verb):
            check(params)
    for python in dict.fromkeys(job.python for job in jobs if job.request.python(job.stage)):
        require_usable(python)
    return jobs


def require_sources(request: Request) -> None:
    """Raises UsageError for a source that is neither here nor a data set on the Hub, or that is used twice."""
    from spec_convert.evaluation.rows import hub_dataset
    from spec_convert.training.conversations.presets import PRESETS

    ours, held_out = (request.sources(held_out=part) for part in (False, True))
    if "held_out" in request.said and not held_out:
        raise UsageError("[held_out] has no sources", hint='sources = ["FILE"]')
    if both := set(ours).intersection(held_out):
        hint = "hold out other conversations: of those that it has learned a draft knows the answers"
        raise UsageError(f"{both.pop()} is learned from and held out", hint=hint)
    for source in (*ours, *held_out):
        if source not in PRESETS:
            hub_dataset(source)


def require_no_idle_table(request: Request) -> None:
    """Raises UsageError for [vocab] of a draft that has the verifier's whole vocabulary."""
    from spec_convert.training.settings import PRUNES, WHOLE_VOCABULARY

    draft = request.said.get("train", {}).get("draft")
    if "vocab" in request.said and draft in RECIPES and draft not in PRUNES:
        hint = f"leave [vocab] out; it is for {' and '.join(PRUNES)}"
        raise UsageError(f"[vocab] means nothing here: {draft} {WHOLE_VOCABULARY}", hint=hint)
