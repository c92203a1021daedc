"""What has become of a training."""

from __future__ import annotations

import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spec_convert.errors import Exit


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Counts are of the whole training, earlier runs of it among them."""

    folder: Path
    steps: int
    planned_steps: int
    epochs: int
    tokens: int
    seconds: float
    skipped: int  # steps whose gradients were not finite
    metrics: dict[str, Any] | None  # the last line about training rows
    held_out: dict[str, Any] | None  # the last line about held-out rows
    best_epoch: int | None
    draft: Path | None  # of the last epoch
    state: Path | None  # to go on from
    stopped_by: int = 0  # the signal
    problem: str = ""  # why it cannot go on

    @property
    def exit_code(self) -> int:
        """0 done, 1 no finite gradients, 128 and the signal when one stopped it."""
        if self.problem:
            return Exit.FINDINGS
        return 128 + self.stopped_by if self.stopped_by else Exit.CLEAN

    def to_json(self) -> dict[str, Any]:
        paths = {name: str(path) for name, path in asdict(self).items() if isinstance(path, Path)}
        stopped_by = signal.Signals(self.stopped_by).name if self.stopped_by else None
        return asdict(self) | paths | {"stopped_by": stopped_by}
