"""The things of a run: what stages read and make, where they lie, and by what their content is known again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spec_convert.evaluation.rows import hub_dataset
from spec_convert.training.capture.identity import digest_of, identity_of
from spec_convert.training.conversations.presets import PRESETS
from spec_convert.training.pipeline.content import content_of, text_of
from spec_convert.training.pipeline.settings import Request
from spec_convert.training.pipeline.stages import HELD_OUT, STAGES
from spec_convert.training.trainer.folder import RunFolder
from spec_convert.verifier import open_verifier


@dataclass(frozen=True, slots=True)
class Thing:
    """``values``: what stands for it on a command line. ``content``: a digest, or None when it is not there.

    ``made_by``: the stage; None: it comes from outside.
    """

    values: Callable[[], tuple[str, ...]]
    content: Callable[[], str | None]
    made_by: str | None = None


def things_of(request: Request) -> Mapping[str, Thing]:
    """All that this run has, by name."""
    layout = request.layout
    held_out = layout.held_out
    paths = {
        "answered": layout.answered, "prepared": layout.prepared, "states": layout.states,
        f"answered{HELD_OUT}": held_out / "answered.jsonl", f"prepared{HELD_OUT}": held_out / "prepared",
        f"states{HELD_OUT}": held_out / "states", "vocabulary": layout.vocabulary, "validation": layout.validation,
        "evaluation": layout.evaluation, "report": layout.report,
    }  # fmt: skip
    makers = {stage.makes: stage.name for stage in STAGES if request.wants(stage)}
    made = {name: _made(paths[name], maker) for name, maker in makers.items() if name in paths}
    things = {
        **made,
        "run": Thing(lambda: (str(layout.path),), lambda: ""),
        "verifier": Thing(lambda: (request.verifier,), cache(lambda: _of_verifier(request.verifier))),
        "training": Thing(lambda: (str(layout.training),), lambda: _of_training(layout.training), "train"),
        "draft": Thing(lambda: (str(draft_in(layout.training, request)),), lambda: _of_draft(layout.training), "train"),
    }
    for part in ("", HELD_OUT):
        if sources := request.sources(held_out=bool(part)):
            things[f"sources{part}"] = _outside(sources)
            things[f"conversations{part}"] = things.get(f"answered{part}", things[f"sources{part}"])
    return things


def draft_in(training: Path, request: Request) -> Path:
    """The draft that is worth looking at: the best on what is held out, else the last. Which, is known once trained."""
    found = _draft(training)
    return found or training / ("best" if request.sources(held_out=True) else "epoch_NNNN")


def _draft(training: Path) -> Path | None:
    run = RunFolder(training)
    if run.best.exists():
        return run.best
    return max(run.drafts(), default=None)


def _made(path: Path, maker: str) -> Thing:
    return Thing(lambda: (str(path),), lambda: content_of(path), maker)


def _outside(sources: tuple[str, ...]) -> Thing:
    """Files count by their content, data sets of the Hub by their names."""

    def content() -> str:
        return digest_of(_of_source(name) for name in sources)

    return Thing(lambda: sources, cache(content))


def _of_source(name: str) -> str:
    return name if name in PRESETS or hub_dataset(name) else str(content_of(Path(name)))


def _of_verifier(name: str) -> str:
    verifier = open_verifier(name)
    return digest_of((identity_of(verifier), text_of(verifier)))


def _of_draft(training: Path) -> str | None:
    draft = _draft(training)
    return content_of(draft.resolve()) if draft else None


def _of_training(training: Path) -> str | None:
    """The draft, and what was logged on the way to it."""
    draft, metrics = _of_draft(training), content_of(RunFolder(training).metrics)
    return digest_of((draft, metrics)) if draft and metrics else None
