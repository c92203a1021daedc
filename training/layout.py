"""Where things lie in the folder of a run: what `pipeline` and `demo` make, and `report` reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunLayout:
    """Names only: which of them are there depends on how far the run has come, and on what it was asked for."""

    path: Path

    @property
    def record(self) -> Path:
        """What was asked for, and what became of each stage."""
        return self.path / "run.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def answered(self) -> Path:
        """Conversations with the verifier's own answers, which `regenerate` wrote."""
        return self.path / "answered.jsonl"

    @property
    def prepared(self) -> Path:
        return self.path / "prepared"

    @property
    def states(self) -> Path:
        return self.path / "states"

    @property
    def held_out(self) -> Path:
        """Hidden states of conversations that are not learned from, and beside them what they were made of."""
        return self.path / "held-out"

    @property
    def vocabulary(self) -> Path:
        return self.path / "vocabulary"

    @property
    def training(self) -> Path:
        """A training's own folder: `trainer.folder.RunFolder`."""
        return self.path / "training"

    @property
    def validation(self) -> Path:
        """What `validate --format json` says of the draft."""
        return self.path / "validation.json"

    @property
    def evaluation(self) -> Path:
        """What `evaluate --json` says of the draft."""
        return self.path / "evaluation.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"
