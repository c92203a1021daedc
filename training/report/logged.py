"""`metrics.jsonl` read back, while a training writes it too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spec_convert.errors import UsageError

Step = Annotated[int, Field(ge=0, lt=2**63)]
Numbers = tuple[float | None, ...]


class Logged(BaseModel):
    """One line, as `Recorder.write` made it, with what else it may hold. Lists: a number for each step of a chain."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    step: Step
    kind: Literal["train", "held_out", "skipped"]
    epoch: Step | None = None
    lr: float | None = None
    gradient_norm: float | None = None
    tokens: Step | None = None
    tokens_per_second: float | None = None
    loss: float | None = None
    losses: Numbers = ()
    accuracy: Numbers = ()
    joint: Numbers = ()
    conditional: Numbers = ()
    alpha: Numbers = ()
    tau: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """All that was logged. ``torn``: its last line is not written to its end yet, and left out."""

    lines: tuple[Logged, ...]
    torn: bool

    def of(self, kind: Literal["train", "held_out", "skipped"]) -> list[Logged]:
        return [line for line in self.lines if line.kind == kind]

    @property
    def last(self) -> Logged | None:
        """The last line about training rows."""
        return next((line for line in reversed(self.lines) if line.kind == "train"), None)

    @property
    def seconds(self) -> float:
        """What the logged steps took, without evaluations and states."""
        known = [line for line in self.of("train") if line.tokens is not None and line.tokens_per_second]
        tokens = [0, *(line.tokens or 0 for line in known)]
        speeds = [line.tokens_per_second or 1.0 for line in known]
        return sum((now - before) / speed for (before, now), speed in zip(pairwise(tokens), speeds, strict=True))

    def to_json(self) -> dict[str, Any]:
        return {"lines": [line.model_dump(mode="json", exclude_unset=True) for line in self.lines], "torn": self.torn}


def read_log(path: Path) -> Log | None:
    """None when there is none. Raises UsageError for a line that no training writes."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as reason:
        raise UsageError(f"{path} cannot be read: {reason.strerror}", hint="check its permissions") from reason
    whole, _, rest = text.rpartition(b"\n")
    return Log(lines=tuple(_lines(path, whole.splitlines())), torn=bool(rest))


def _lines(path: Path, raw: Sequence[bytes]) -> Iterator[Logged]:
    for number, line in enumerate(raw, 1):
        try:
            yield Logged.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise UsageError(
                f"{path}, line {number}: {where}: {first['msg']}",
                hint="it is damaged, or another version of spec-convert wrote it: take that version's `report`",
            ) from error
