"""`Run`: everything that the folder of a run holds, read and understood. What is not there is None or empty."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from spec_convert.errors import UsageError
from spec_convert.evaluation.measured import Measured
from spec_convert.evaluation.reading import read_measured
from spec_convert.reports.schema import ValidationReport
from spec_convert.training.layout import RunLayout
from spec_convert.training.report.documents import damaged, read_object, require_version, understood
from spec_convert.training.report.drafts import SavedDraft, read_drafts, when
from spec_convert.training.report.logged import Log, Step, read_log
from spec_convert.training.report.record import Record, is_record, read_record
from spec_convert.training.store.manifest import NAME, Manifest, read_manifest
from spec_convert.training.trainer.folder import NUMBERS, RunFolder, all_states
from spec_convert.training.vocabulary.files import KeyFile, read_key_file

SCHEMA_VERSION = 1
VALIDATE = "spec-convert validate DRAFT --output json=RUN/validation.json"
EVALUATE = "spec-convert evaluate DRAFT --prompts FILE --output RUN/evaluation.json"
TRAIN = "spec-convert train, with --no-resume-from-checkpoint"


class Reached(BaseModel):
    """How far a state is: what is shown of `trainer.progress.Progress`, which loads torch."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    step: Step
    epochs: Step
    tokens: Step
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    skipped: Step
    best_epoch: Step | None


class State(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    progress: Reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """``request``: its run.json. ``progress``: of its last state. ``changed``: when a line was last written, in UTC."""

    folder: Path
    request: dict[str, Any] | None
    log: Log | None
    changed: str | None
    progress: Reached | None
    drafts: tuple[SavedDraft, ...]

    @property
    def step(self) -> int:
        """The last that is known to be done."""
        logged = self.log.lines[-1].step if self.log and self.log.lines else 0
        return max(logged, self.progress.step if self.progress else 0)

    @property
    def over(self) -> bool:
        """Whether all that was asked for is done: what is going on, and what was stopped, is not."""
        if not self.request or not self.progress:
            return False
        epochs, steps = self.request.get("epochs"), self.request.get("max_steps")
        return self.progress.epochs == epochs or self.progress.step == steps

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "request": self.request,
            "log": None if self.log is None else self.log.to_json(),
            "changed": self.changed,
            "progress": None if self.progress is None else self.progress.model_dump(),
            "over": self.over,
            "drafts": [draft.to_json() for draft in self.drafts],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    folder: Path
    read: str  # when, in UTC
    version: str  # of the spec-convert that read it
    record: Record | None
    training: Training | None
    vocabulary: KeyFile | None
    data: dict[str, Manifest]  # by their place in the folder
    validation: ValidationReport | None
    evaluation: Measured | None

    def to_json(self) -> dict[str, Any]:
        """What the page carries, and `report --json` prints."""
        return {
            "schema_version": SCHEMA_VERSION,
            "spec_convert": self.version,
            "folder": str(self.folder),
            "read": self.read,
            "record": None if self.record is None else self.record.model_dump(mode="json"),
            "training": None if self.training is None else self.training.to_json(),
            "vocabulary": None if self.vocabulary is None else self.vocabulary.model_dump(mode="json"),
            "data": {place: manifest.model_dump(mode="json") for place, manifest in self.data.items()},
            "validation": None if self.validation is None else self.validation.model_dump(mode="json"),
            "evaluation": None if self.evaluation is None else self.evaluation.to_json(),
        }


def read_run(folder: Path) -> Run:
    """Raises UsageError for a folder of nothing like a run, and for a part that cannot be understood."""
    from importlib.metadata import version

    layout = RunLayout(folder)
    document = read_object(layout.record, again="the command that made this run")
    of_stages = layout.training.is_dir() or (document is not None and is_record(document))
    run = Run(
        folder=folder,
        read=when(time.time()),
        version=version("spec-convert"),
        record=read_record(document, layout.record) if document is not None and of_stages else None,
        training=_training(RunFolder(layout.training if of_stages else folder)),
        vocabulary=read_key_file(layout.vocabulary),
        data=dict(_data(layout)),
        validation=_validation(layout.validation),
        evaluation=_evaluation(layout.evaluation),
    )
    if not any((run.record, run.training, run.vocabulary, run.data, run.validation, run.evaluation)):
        what = "holds nothing of a run" if folder.is_dir() else "is no folder"
        hint = "give the folder of `spec-convert pipeline` or `demo`, or the --save-path of `spec-convert train`"
        raise UsageError(f"{folder} {what}", hint=hint)
    return run


def _training(folder: RunFolder) -> Training | None:
    request, log = read_object(folder.run, again=TRAIN), read_log(folder.metrics)
    drafts = read_drafts(folder)
    if request is None and log is None and not drafts:
        return None
    return Training(
        folder=folder.path,
        request=request,
        log=log,
        changed=when(folder.metrics.stat().st_mtime) if log else None,
        progress=_progress(folder),
        drafts=drafts,
    )


def _progress(folder: RunFolder) -> Reached | None:
    """Of the last state; a training that goes on may have removed it by now."""
    states = all_states(folder.states)
    path = states[-1] / NUMBERS if states else None
    numbers = read_object(path, again=TRAIN) if path else None
    if path is None or numbers is None:
        return None
    return understood(State, numbers, path, again=TRAIN).progress


def _data(layout: RunLayout) -> Iterator[tuple[str, Manifest]]:
    folders = [layout.prepared, layout.states, layout.held_out, *sorted(layout.held_out.glob("*/"))]
    for folder in folders:
        if (folder / NAME).exists():
            yield folder.relative_to(layout.path).as_posix(), read_manifest(folder)


def _validation(path: Path) -> ValidationReport | None:
    document = read_object(path, again=VALIDATE)
    if document is None:
        return None
    require_version(document, path, 1, again=VALIDATE)
    return understood(ValidationReport, document, path, again=VALIDATE)


def _evaluation(path: Path) -> Measured | None:
    document = read_object(path, again=EVALUATE)
    if document is None:
        return None
    try:
        return read_measured(document)
    except ValueError as reason:
        raise damaged(path, str(reason), again=EVALUATE) from reason
