"""What is not in the folder of a run, and what to type to have it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from spec_convert.training.layout import RunLayout
from spec_convert.training.report.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    what: str
    command: str


def absent(run: Run) -> Iterator[Absent]:
    """Of a training's own folder nothing that is made before it: that may lie anywhere."""
    layout = RunLayout(run.folder)
    if run.record or run.data or run.training is None:
        yield from _before(run, layout)
    if run.training is None:
        yield Absent(
            what="A training",
            command="spec-convert train --draft eagle3 --verifier-name-or-path BASE "
            f"--data-path {_typed(layout.states)} --save-path {_typed(layout.training)}",
        )
    elif run.training.log is None:
        yield Absent(what="What was logged: metrics.jsonl", command="spec-convert train writes it, beside its drafts")
    elif not run.training.log.of("held_out"):
        yield Absent(
            what="An evaluation after each epoch, and so a best one",
            command="spec-convert train, with --val-data-path DIR",
        )
    draft = _draft(run)
    if run.validation is None:
        yield Absent(
            what="A validation of the draft",
            command=f"spec-convert validate {draft} --output json={_typed(layout.validation)}",
        )
    if run.evaluation is None:
        yield Absent(
            what="An evaluation of the draft at work: acceptance, speed, whether the text is the verifier's",
            command=f"spec-convert evaluate {draft} --prompts questions.jsonl --output {_typed(layout.evaluation)}",
        )


def _before(run: Run, layout: RunLayout) -> Iterator[Absent]:
    if "prepared" not in run.data:
        yield Absent(
            what="Prepared conversations",
            command=f"spec-convert prepare CONVERSATIONS {_typed(layout.prepared)} --verifier BASE",
        )
    if "states" not in run.data:
        yield Absent(
            what="The verifier's hidden states",
            command=f"spec-convert generate {_typed(layout.prepared)} {_typed(layout.states)}",
        )
    if run.vocabulary is None and not whole(run):
        yield Absent(
            what="A vocabulary of the draft",
            command=f"spec-convert vocab {_typed(layout.states)} {_typed(layout.vocabulary)}",
        )


def whole(run: Run) -> bool:
    """Whether the draft is known to have the verifier's whole vocabulary."""
    request = (run.training.request if run.training else None) or {}
    return "vocabulary" in request and request["vocabulary"] is None


def _draft(run: Run) -> str:
    """The best one, or the last."""
    drafts = run.training.drafts if run.training else ()
    chosen = next((draft for draft in drafts if draft.best), drafts[-1] if drafts else None)
    return _typed(run.training.folder / chosen.name) if run.training and chosen else "DRAFT"


def _typed(path: Path) -> str:
    return quote(str(path))
