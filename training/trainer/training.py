"""The loop: steps, what is logged of them, and what is written so that nothing of it is lost."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.training.objectives.objective import Objective
from spec_convert.training.trainer.evaluating import evaluate, score
from spec_convert.training.trainer.feeding import Batches, Course, Fed, feed, plan_course
from spec_convert.training.trainer.folder import RunFolder, claim
from spec_convert.training.trainer.metrics import metrics_of
from spec_convert.training.trainer.optimisers import Optimiser
from spec_convert.training.trainer.plan import Plan
from spec_convert.training.trainer.processes import Processes
from spec_convert.training.trainer.progress import Progress
from spec_convert.training.trainer.recording import Recorder, Tracking, in_words, recording
from spec_convert.training.trainer.resuming import as_json, state_to_resume
from spec_convert.training.trainer.schedules import rate_at
from spec_convert.training.trainer.state import read_numbers, read_state, tidy, write_state
from spec_convert.training.trainer.stepping import Gradients, compute_gradients
from spec_convert.training.trainer.stopping import Stop, stopping
from spec_convert.training.trainer.trackers import require_trackers
from spec_convert.training.trainer.trained import Trained
from spec_convert.training.trainer.wrapping import Wrapped


class Save(Protocol):
    """Writes a draft: called in the first process, with all its tensors on the CPU, weights in float32."""

    def __call__(self, folder: Path, tensors: dict[str, Tensor], *, step: int, epoch: int) -> object:
        """``folder`` may hold the same draft of a run that was killed, and is replaced then. Epochs count from 1."""


def train(  # noqa: PLR0913  the contract of a training, part by part
    objective: Objective,
    batches: Batches,
    plan: Plan,
    folder: Path,
    *,
    processes: Processes,
    save: Save,
    request: Mapping[str, Any],
    held_out: Batches | None = None,
    resume: bool = True,
    track: Tracking = Tracking(),  # noqa: B008  frozen
) -> Trained:
    """Train ``objective`` in ``folder``, or go on with what is there, to the same weights as without a break.

    ``request``: whatever else decides the result, as JSON: data, loss, draft. With the plan and the number of
    processes it is kept, and a training goes on for the same request only. ``held_out``: evaluated at the end of each
    epoch. Without ``resume`` what is in the folder is moved aside. Raises UsageError.
    """
    require_trackers(track.names)
    contract = as_json({**plan.deciding(), "processes": processes.world, **request})
    course = plan_course(
        batches, per_step=plan.accumulation * processes.world, epochs=plan.epochs, max_steps=plan.max_steps
    )
    if held_out is not None and not held_out.rows(0):
        raise UsageError("the data that are held out hold no row", hint="prepare and capture more of them")
    lock = processes.on_first(lambda: claim(folder))
    try:
        run = RunFolder(folder)
        state = processes.on_first(lambda: state_to_resume(run, contract, resume=resume))
        progress = read_numbers(state)[1] if state else Progress()
        processes.on_first(lambda: tidy(run.states, plan.keep_states))
        processes.on_first(lambda: run.write_request(contract))
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng([processes.device] if processes.device.type == "cuda" else []))
            wrapped = Wrapped(objective, processes, plan.amp)
            training = _Training(
                plan=plan, course=course, batches=batches, held_out=held_out, folder=run, save=save, contract=contract,
                processes=processes, progress=progress, wrapped=wrapped, state=state,
                optimiser=Optimiser(dict(objective.named_parameters()), plan),
                stop=stack.enter_context(stopping(alone=processes.world == 1)),
                recorder=stack.enter_context(
                    recording(track, run, contract, progress, processes, total=course.total)
                ),
            )  # fmt: skip
            return training.run()
    finally:
        if processes.first:
            os.close(lock)


@dataclass(kw_only=True)
class _Training:
    """A training at work, in one of its processes."""

    plan: Plan
    course: Course
    batches: Batches
    held_out: Batches | None
    folder: RunFolder
    save: Save
    contract: Mapping[str, Any]
    processes: Processes
    progress: Progress
    wrapped: Wrapped
    optimiser: Optimiser
    stop: Stop
    recorder: Recorder
    state: Path | None  # the last one
    stopped_by: int = 0
    problem: str = ""

    def run(self) -> Trained:
        if self.state:
            read_state(self.state, self._tensors(), processes=self.processes)
            self.processes.say(
                f"Going on from {self.state}, after step {self.progress.step:,} of {self.course.total:,}"
            )
        else:
            self.processes.say(f"Training on {self.processes.device}: {self.course.total:,} steps")
        self._clock = time.monotonic()
        self._mark()
        self._end_epoch()
        rank, world = self.processes.rank, self.processes.world
        with closing(feed(self.batches, self.course, start=self.progress.step, rank=rank, world=world)) as steps:
            for rows in steps:
                self.stopped_by = self.stopped_by or self.stop.agreed(self.processes)
                if self.stopped_by:
                    break
                self._step(rows)
                if self.problem:
                    break
                self._end_epoch()
        done = f"after step {self.progress.step:,} of {self.course.total:,}"
        if self.stopped_by:
            self._write_state()
            name = signal.Signals(self.stopped_by).name
            self.processes.say(f"Stopped by {name} {done}. To go on, give the same command again")
        elif not self.problem:
            self.processes.say(f"Done {done}, {self.progress.tokens:,} tokens")
        return self._trained()

    def _step(self, rows: list[Fed]) -> None:
        number = self.progress.step + 1
        stage = self.wrapped.objective.at(self.progress.step / self.course.total)
        found = compute_gradients(
            self.wrapped, self.optimiser, rows, step=number, seed=self.plan.seed,
            measure=number % self.plan.measure_every == 0, processes=self.processes,
        )  # fmt: skip
        scale = stage * rate_at(
            self.progress.step, total=self.course.total, schedule=self.plan.schedule, warmup=self.plan.warmup
        )
        if self.progress.passes(finite=found.finite):
            self.optimiser.step(scale)
            self.progress.add(found.sums)
            self.progress.tokens += found.tokens
        else:
            self.optimiser.clear()
            self._skipped()
        if number % self.plan.log_every == 0 or number == self.course.total:
            self._log(found, scale)
        self.recorder.step()
        often = self.plan.save_every_steps
        if often and number % often == 0 and not self._epoch_ends() and not self.progress.skipped_in_a_row:
            self._write_state()

    def _skipped(self) -> None:
        in_a_row, limit = self.progress.skipped_in_a_row, self.plan.nan_limit
        self.recorder.write("skipped", {"in_a_row": in_a_row})
        self.processes.say(f"Step {self.progress.step:,} is left out: its gradients are not finite")
        if in_a_row >= limit:
            kept = f"the last good state is {self.state}" if self.state else "there is no state yet"
            self.problem = f"the gradients of {in_a_row} steps in a row were not finite; {kept}"

    def _log(self, found: Gradients, scale: float) -> None:
        then, tokens = self._marked
        facts = {
            "epoch": self.course.place(self.progress.step - 1).epoch + 1,
            "lr": self.plan.lr * scale,
            "gradient_norm": found.norm if math.isfinite(found.norm) else None,
            "skipped": self.progress.skipped,
            "tokens": self.progress.tokens,
            "tokens_per_second": (self.progress.tokens - tokens) / (time.monotonic() - then),
        }
        decay = self.wrapped.objective.decay
        sums = self.progress.take_sums(len(decay))
        if found.finite and not sums.weight.any():
            self.processes.say(f"Step {self.progress.step:,}: nothing was learned lately: no loss_mask marks an answer")
        metrics = metrics_of(sums, decay)
        self.progress.metrics = self.recorder.write("train", facts, metrics)
        self.recorder.tell(self.progress.metrics)
        self._mark()

    def _epoch_ends(self) -> bool:
        """Whether the end of an epoch is reached, and what belongs to it is still to be done."""
        return self.course.epochs_done(self.progress.step) > self.progress.epochs

    def _end_epoch(self) -> None:
        """Evaluate and save the draft, if an epoch ends here. A signal leaves it for the next run."""
        if not self._epoch_ends():
            return
        epoch = self.progress.epochs + 1
        if self.held_out is not None and not self._evaluate(self.held_out, epoch):
            return
        self._save_draft(epoch)
        self.progress.epochs = epoch
        self._write_state()
        self._mark()

    def _evaluate(self, held_out: Batches, epoch: int) -> bool:
        self.wrapped.objective.at((self.progress.step - 1) / self.course.total)  # what the last step was trained on
        sums = evaluate(self.wrapped, held_out, seed=self.plan.seed, processes=self.processes, stop=self.stop)
        if sums is None:
            self.stopped_by = self.stop.agreed(self.processes)
            return False
        metrics = metrics_of(sums, self.wrapped.objective.decay)
        line = self.progress.held_out = self.recorder.write("held_out", {"epoch": epoch}, metrics)
        found = score(metrics)
        if found is not None and self.progress.is_best(found):
            self.progress.best_epoch, self.progress.best_score = epoch, found
        self.processes.say(
            f"Held out, after epoch {epoch}: {in_words(line)}; the best is epoch {self.progress.best_epoch}"
        )
        return True

    def _save_draft(self, epoch: int) -> None:
        tensors = self.wrapped.draft(keep=self.processes.first)
        path = self.folder.draft(epoch)

        def write() -> None:
            self.save(path, tensors, step=self.progress.step, epoch=epoch)
            if self.progress.best_epoch:
                self.folder.point_at_best(self.progress.best_epoch)

        self.processes.on_first(write)
        self.processes.say(f"Epoch {epoch}: the draft is in {path}")

    def _tensors(self) -> dict[str, Tensor]:
        weights = {f"weights/{name}": tensor for name, tensor in self.wrapped.weights().items()}
        return weights | {f"moments/{name}": tensor for name, tensor in self.optimiser.moments().items()}

    def _write_state(self) -> None:
        self._tick()
        self.state = write_state(
            self.folder.states, self._tensors(), self.progress, self.contract,
            keep=self.plan.keep_states, processes=self.processes, epoch_open=self._epoch_ends(),
        )  # fmt: skip

    def _tick(self) -> None:
        now = time.monotonic()
        self.progress.seconds, self._clock = self.progress.seconds + now - self._clock, now

    def _mark(self) -> None:
        """From here on the next line of the log counts tokens per second."""
        self._marked = time.monotonic(), self.progress.tokens

    def _trained(self) -> Trained:
        self._tick()
        epochs, best = self.progress.epochs, self.progress.best_epoch
        return Trained(
            folder=self.folder.path, steps=self.progress.step, planned_steps=self.course.total, epochs=epochs,
            tokens=self.progress.tokens, seconds=self.progress.seconds, skipped=self.progress.skipped,
            metrics=self.progress.metrics, held_out=self.progress.held_out, best_epoch=best,
            draft=self.folder.draft(epochs) if epochs else None, state=self.state,
            stopped_by=self.stopped_by, problem=self.problem,
        )  # fmt: skip
