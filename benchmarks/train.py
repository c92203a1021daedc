"""Tokens a second and peak memory of a training step of EAGLE-3, ours and that of the speculators library.

    python benchmarks/train.py [--speculators-python VENV/bin/python] [--rounds N] [--threads N] [--large]

One step: three steps of training-time test, forward and backward, and AdamW, in float32 on the CPU. All contenders run
in turn, round after round, each in a process of its own (`train_step.py`). Prints Markdown tables, and leaves with 1
when the losses of the same weights on the same text are not the same.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from convert import ENVIRONMENT, measure  # only the standard library there and here: see why in that file

STEP = Path(__file__).with_name("train_step.py")
PROMPT = 3  # tokens at least that are not learned at the start of a document: see `train_step.py`
SAME = 1e-4  # how far losses may be apart, as a part of them


@dataclass(frozen=True)
class Work:
    """One packed row of ``documents`` texts of ``length`` tokens, each with a prompt that is not learned."""

    shape: str
    documents: int
    length: int
    prompt: int = PROMPT
    steps: int = 1  # that are timed in a process

    @property
    def tokens(self) -> int:
        return self.documents * self.length

    def __str__(self) -> str:
        prompts = f", prompts of {self.prompt}" if self.prompt > PROMPT else ""
        return f"{self.shape}, {self.documents} x {self.length} tokens{prompts}"


WORKS = (
    Work("SmolLM2 135M", 4, 256, steps=3),
    Work("SmolLM2 135M", 16, 256),
    Work("SmolLM2 135M", 1, 4096),
    Work("SmolLM2 135M", 16, 256, prompt=102),
)
LARGE = Work("Llama 3.1 8B", 2, 256)


@dataclass(frozen=True)
class Contender:
    """``trained``: the draft's head is. ``measured``: hits and windows are counted too, as at every logged step."""

    name: str
    ours: bool = True
    trained: bool = False
    measured: bool = False


THEIRS = Contender("speculators", ours=False)
CONTENDERS = (
    THEIRS,
    Contender("ours"),
    Contender("ours, head trained", trained=True),
    Contender("ours, head trained, measured", trained=True, measured=True),
)


@dataclass
class Row:
    """What the processes of one contender on one work took, and what they found."""

    work: Work
    contender: Contender
    speeds: list[float] = field(default_factory=list)  # tokens a second, of each step
    of_cpu: list[float] = field(default_factory=list)  # tokens for a second of processor time
    peaks: list[float] = field(default_factory=list)  # MiB
    resident: list[float] = field(default_factory=list)  # MiB, before the first step
    losses: list[list[float]] = field(default_factory=list)  # of the first two steps, by step of the chain

    def run(self, python: Path, log: Path) -> None:
        task = json.dumps([asdict(self.work), asdict(self.contender)])
        _, peak, _ = measure([str(python), str(STEP), task], log)
        found: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
        self.speeds += [self.work.tokens / seconds for seconds in found["seconds"]]
        self.of_cpu += [self.work.tokens / seconds for seconds in found["of_cpu"]]
        self.peaks.append(peak)
        self.resident.append(found["resident"])
        self.losses = found["losses"]

    def line(self, theirs: Row | None) -> str:
        """What beside theirs is given with a factor: of the medians, and of the largest peaks."""
        speed, of_cpu, peak = median(self.speeds), median(self.of_cpu), max(self.peaks)
        faster = f"{speed / median(theirs.speeds):.2f}" if theirs else ""
        cheaper = f"{of_cpu / median(theirs.of_cpu):.2f}" if theirs else ""
        smaller = f"{peak / max(theirs.peaks):.2f}" if theirs else ""
        return (
            f"| {self.contender.name} | {speed:.0f} | {min(self.speeds):.0f} - {max(self.speeds):.0f} | {faster} "
            f"| {of_cpu:.0f} | {cheaper} | {peak:.0f} | {smaller} | {min(self.resident):.0f} |"
        )

    def losses_line(self, theirs: Row) -> str:
        first, second = (" ".join(f"{loss:.6f}" for loss in step) for step in self.losses)
        apart = f"{self.apart(theirs, 0):.0e} | {self.apart(theirs, 1):.0e}" if self is not theirs else " |"
        return f"| {self.work} | {self.contender.name} | {first} | {second} | {apart} |"

    def apart(self, theirs: Row, step: int) -> float:
        """The largest difference of the losses of a training step, as a part of theirs."""
        pairs = zip(self.losses[step], theirs.losses[step], strict=True)
        return max(abs(one - other) / other for one, other in pairs)


def contest(work: Work, pythons: dict[bool, Path], rounds: int, log: Path) -> list[Row]:
    rows = [Row(work, contender) for contender in CONTENDERS if contender.ours in pythons]
    for number in range(rounds):
        print(f"{work}: round {number + 1} of {rounds}", file=sys.stderr)
        for row in rows:
            row.run(pythons[row.contender.ours], log)
    return rows


def theirs_of(rows: list[Row]) -> Row | None:
    return next((row for row in rows if row.contender is THEIRS), None)


def show(rows: list[Row]) -> None:
    print(f"\n{rows[0].work}:\n")
    print("| step | tokens/s | min - max | x theirs | a CPU second | x theirs | peak MiB | x theirs | at the start |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(row.line(theirs_of(rows)))


def show_losses(tables: list[list[Row]]) -> bool:
    """Whether they are the same: after one update too, where both train the same weights."""
    print("\n| text | step | losses | after an update | apart | after an update |\n|---|---|---|---|---:|---:|")
    same = True
    for rows in tables:
        theirs = theirs_of(rows) or rows[0]
        for row in rows:
            print(row.losses_line(theirs))
            steps = (0, 1) if row.contender.trained == theirs.contender.trained else (0,)
            same &= all(row.apart(theirs, step) < SAME for step in steps)
    return same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speculators-python", type=Path, help="the Python of an environment with speculators")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--large", action="store_true", help="the shape of Llama 3.1 8B alone, which takes some 13 GB")
    args = parser.parse_args()
    ENVIRONMENT["OMP_NUM_THREADS"] = str(args.threads)
    pythons = {True: Path(sys.executable)}
    if args.speculators_python:
        pythons[False] = args.speculators_python.absolute()
    tables = []
    with tempfile.TemporaryDirectory() as scratch:
        for work in (LARGE,) if args.large else WORKS:
            tables.append(contest(work, pythons, args.rounds, Path(scratch) / "log"))
            show(tables[-1])
    same = show_losses(tables)
    print(f"\n{args.rounds} rounds, {args.threads} threads.")
    if args.speculators_python is None:
        print("The speculators library is left out: `--speculators-python` was not given.")
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
