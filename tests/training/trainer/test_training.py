"""The loop in one process: which rows are read, what a step is, what is written, what is refused."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.training.batches.batch import Batch
from spec_convert.training.trainer.feeding import Course, Place, plan_course
from spec_convert.training.trainer.plan import Plan
from spec_convert.training.trainer.processes import joined
from spec_convert.training.trainer.recording import Tracking
from spec_convert.training.trainer.trained import Trained
from spec_convert.training.trainer.training import train

from .test_resume import log, newest
from .toy import ToyObjective, ToyRows, identical, save_draft, tensors_of


def trained(
    folder: Path, rows: ToyRows | None = None, objective: ToyObjective | None = None, *,
    request: dict[str, Any] | None = None, resume: bool = True, held_out: ToyRows | None = None,
    track: Tracking | None = None, **plan: Any,
) -> Trained:  # fmt: skip
    told = Plan(**{"lr": 0.01, "seed": 1, "epochs": 1, "device": "cpu", **plan})
    with joined(told) as processes:
        return train(
            objective or ToyObjective(), rows or ToyRows(4), told, folder, processes=processes, save=save_draft,
            request=request or {}, resume=resume, held_out=held_out, track=track or Tracking(),
        )  # fmt: skip


def test_every_row_of_every_epoch_is_read_once_however_many_processes_read() -> None:
    for per_step, world in ((1, 1), (4, 1), (4, 2), (6, 3), (2, 2)):
        course = plan_course(ToyRows(9, 4, 7), per_step=per_step, epochs=3, max_steps=None)
        read: list[tuple[int, int, int]] = []
        for step in range(course.total):
            place = course.place(step)
            shares = [course.rows_of(place, rank=rank, world=world) for rank in range(world)]
            assert len({len(share) for share in shares}) == 1, "all take part in as many exchanges"
            read += [(step, place.epoch, row) for share in shares for row, counts in share if counts]
        assert sorted((epoch, row) for _, epoch, row in read) == [
            (e, r) for e, n in enumerate((9, 4, 7)) for r in range(n)
        ]
        alone = [course.rows_of(course.place(step), rank=0, world=1) for step in range(course.total)]
        assert sorted(read) == sorted(
            (step, course.place(step).epoch, row) for step, rows in enumerate(alone) for row, _ in rows
        )


def test_a_course_knows_its_places_and_where_epochs_end() -> None:
    course = plan_course(ToyRows(5, 2), per_step=2, epochs=None, max_steps=6)
    assert course == Course(rows=(5, 2, 2, 2), per_step=2, total=6)
    assert [course.place(step) for step in (0, 2, 3, 5)] == [Place(0, 0), Place(0, 2), Place(1, 0), Place(3, 0)]
    assert [course.epochs_done(steps) for steps in range(7)] == [0, 0, 0, 1, 2, 3, 4]
    early = plan_course(ToyRows(5), per_step=1, epochs=2, max_steps=7)
    assert (early.total, early.epochs_done(6), early.epochs_done(7)) == (7, 1, 2)
    with pytest.raises(UsageError, match="no row"):
        plan_course(ToyRows(0), per_step=1, epochs=1, max_steps=None)


def test_accumulated_rows_are_one_big_batch(tmp_path: Path) -> None:
    """A step of plain SGD is its gradient: that of the mean over all weights, whatever the rows they lie in."""
    done = trained(tmp_path / "run", ToyRows(3), ToyObjective(noise=0.0), accumulation=3, clip=None, betas=(0.0, 0.0))
    assert (done.steps, done.epochs, done.exit_code) == (1, 1, 0)
    objective, batches = ToyObjective(noise=0.0), [ToyRows(3).load(0, row) for row in range(3)]
    together = Batch(**{name: torch.cat([getattr(batch, name) for batch in batches]) for name in
                        ("input_ids", "loss_mask", "states", "final")}, bounds=(0,))  # fmt: skip
    assert not together.loss_mask[[0, 1]].any(), "rows end to end: no weight where one meets the next"
    weight = objective.weights(together)
    objective(together, objective.decay / weight, measure=False, seed=0).loss.backward()
    moments = tensors_of(newest(tmp_path / "run"))
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(moments[f"moments/{name}/exp_avg"], parameter.grad, rtol=1e-5, atol=1e-7)


def test_what_is_random_follows_from_the_seed_and_not_from_what_was_drawn_before(tmp_path: Path) -> None:
    weights = []
    for number, seed in enumerate((1, 1, 2)):
        torch.manual_seed(number)
        before = torch.get_rng_state()
        trained(tmp_path / str(number), seed=seed)
        assert torch.equal(torch.get_rng_state(), before), "the caller's generator is left alone"
        weights.append(tensors_of(newest(tmp_path / str(number))))
    assert identical(weights[0], weights[1])
    assert not identical(weights[0], weights[2])


def test_a_draft_of_each_epoch_is_saved_and_the_best_is_pointed_at(tmp_path: Path) -> None:
    done = trained(tmp_path / "run", ToyRows(8), held_out=ToyRows(3), epochs=3, lr=0.05)
    drafts = [torch.load(tmp_path / "run" / f"epoch_000{epoch}" / "draft.pt") for epoch in (1, 2, 3)]
    assert [(draft["step"], draft["epoch"]) for draft in drafts] == [(8, 1), (16, 2), (24, 3)]
    assert set(drafts[0]["tensors"]) == set(ToyObjective().draft.state_dict())
    held_out = [line for line in log(tmp_path / "run") if line["kind"] == "held_out"]
    best = max(held_out, key=lambda line: line["tau"])
    assert done.best_epoch == best["epoch"]
    assert os.readlink(tmp_path / "run" / "best") == f"epoch_000{best['epoch']}"
    assert done.held_out is not None
    assert done.held_out["tau"] == held_out[-1]["tau"]
    assert json.dumps(done.to_json())


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    first = trained(tmp_path / "run")
    rows = ToyRows(4)
    again = trained(tmp_path / "run", rows)
    assert not rows.read
    assert replace(again, seconds=0.0) == replace(first, seconds=0.0)


def test_a_resume_that_asks_for_something_else_is_refused_by_name(tmp_path: Path) -> None:
    trained(tmp_path / "run", request={"loss": {"name": "soft_ce", "decay": 0.8}})
    with pytest.raises(UsageError) as refused:
        trained(tmp_path / "run", request={"loss": {"name": "tv", "decay": 0.8}, "data": "other"}, lr=0.02)
    assert "data was 'nothing' and is 'other'; loss.name was 'soft_ce' and is 'tv'; lr was 0.01 and is 0.02" in str(
        refused.value
    )
    assert "--no-resume-from-checkpoint" in refused.value.hint
    trained(tmp_path / "run", request={"loss": {"name": "soft_ce", "decay": 0.8}}, log_every=1)  # computes the same


def test_starting_anew_moves_what_is_there_aside(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trained(folder)
    before = tensors_of(newest(folder))
    (folder / "notes.txt").write_text("mine")
    (folder / "logs").mkdir()
    (folder / "report.html").touch()
    trained(folder, lr=0.02, resume=False)
    assert sorted(path.name for path in (folder / "replaced-1").iterdir()) == [
        "epoch_0001",
        "logs",
        "metrics.jsonl",
        "report.html",
        "run.json",
        "states",
    ]
    assert identical(before, tensors_of(newest(folder / "replaced-1")))
    assert not identical(before, tensors_of(newest(folder)))
    assert (folder / "notes.txt").exists()


def test_drafts_without_a_state_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "run" / "epoch_0001").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds drafts, and no state"):
        trained(tmp_path / "run")


def test_a_damaged_state_is_refused_with_its_name(tmp_path: Path) -> None:
    trained(tmp_path / "run")
    (tmp_path / "run" / "states" / "step_000004" / ".metadata").write_bytes(b"")
    with pytest.raises(UsageError, match=r"cannot go on from .*step_000004"):
        trained(tmp_path / "run")


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    class Meeting(ToyRows):
        def load(self, epoch: int, row: int) -> Batch:
            with pytest.raises(UsageError, match="another training"):
                trained(tmp_path / "run")
            return super().load(epoch, row)

    trained(tmp_path / "run", Meeting(1))


def test_steps_without_finite_gradients_change_nothing_and_are_counted(tmp_path: Path) -> None:
    """Rows 1 and 2 are poisoned: the moments are those of two steps, those at rows 0 and 3."""
    done = trained(tmp_path / "run", ToyRows(4, poison=(1, 2)), log_every=1, schedule="constant")
    assert (done.steps, done.skipped, done.exit_code) == (4, 2, 0)
    state = tensors_of(newest(tmp_path / "run"))
    assert all(torch.isfinite(tensor).all() for tensor in state.values() if tensor.is_floating_point())
    assert state["moments/draft.fc.weight/step"] == 2
    lines = log(tmp_path / "run")
    assert [(line["step"], line["kind"]) for line in lines] == [
        (1, "train"), (2, "skipped"), (2, "train"), (3, "skipped"), (3, "train"), (4, "train"),
    ]  # fmt: skip
    assert lines[2]["gradient_norm"] is lines[2]["loss"] is None


def test_too_many_of_them_in_a_row_end_the_training(tmp_path: Path) -> None:
    rows = ToyRows(8, poison=(3, 4, 5))
    done = trained(tmp_path / "run", rows, nan_limit=3, save_every_steps=1, keep_states=9)
    assert (done.steps, done.exit_code, done.epochs) == (6, 1, 0)
    assert "3 steps in a row" in done.problem
    assert newest(tmp_path / "run").name == "step_000003", "the last good state"
    assert trained(tmp_path / "other", rows, nan_limit=4).exit_code == 0


def test_a_signal_during_the_evaluation_leaves_the_end_of_the_epoch_to_the_next_run(tmp_path: Path) -> None:
    class Signalling(ToyRows):
        def load(self, epoch: int, row: int) -> Batch:
            if row == 0:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().load(epoch, row)

    stopped = trained(tmp_path / "run", held_out=Signalling(3))
    assert (stopped.exit_code, stopped.epochs, newest(tmp_path / "run").name) == (143, 0, "step_000004_open")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    done = trained(tmp_path / "run", held_out=ToyRows(3))
    assert (done.exit_code, done.epochs, done.steps, newest(tmp_path / "run").name) == (0, 1, 4, "step_000004")
    undisturbed = trained(tmp_path / "undisturbed", held_out=ToyRows(3))
    assert identical(tensors_of(newest(tmp_path / "run")), tensors_of(newest(tmp_path / "undisturbed")))
    assert done.held_out == undisturbed.held_out


def test_bfloat16_at_work_leaves_weights_and_moments_in_float32(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    class Watching(ToyObjective):
        def _weight(self, batch: Batch, step: int) -> Tensor:
            seen.append((batch.final @ self.head.T).dtype)
            return super()._weight(batch, step)

    done = trained(tmp_path / "run", objective=Watching(), amp="bf16", lr=0.001)
    assert torch.bfloat16 in seen
    assert {tensor.dtype for tensor in tensors_of(newest(tmp_path / "run")).values()} == {torch.float32, torch.int64}
    assert done.metrics is not None
    assert done.metrics["loss"] > 0


def test_muon_turns_matrices_and_leaves_tables_to_adamw(tmp_path: Path) -> None:
    class Again(ToyRows):
        """Every epoch the same, so that there is something to learn."""

        def load(self, epoch: int, row: int) -> Batch:
            return super().load(0, row)

    learner = {"optimiser": "muon", "epochs": 6, "lr": 0.05, "log_every": 8}
    done = trained(tmp_path / "run", Again(8), ToyObjective(noise=0.0), **learner)
    losses = [line["loss"] for line in log(tmp_path / "run") if line["kind"] == "train"]
    assert losses[-1] < 0.7 * losses[0]
    assert done.skipped == 0
    moments = {name for name in tensors_of(newest(tmp_path / "run")) if name.startswith("moments/")}
    turned = {name.split("/")[1] for name in moments if name.endswith("/momentum_buffer")}
    assert turned == {"draft.fc.weight", "draft.layers.0.weight"}
    rest = {name.split("/")[1] for name in moments if name.endswith("/exp_avg")}
    assert rest == {"draft.fc.bias", "draft.norm.weight", "draft.embed_tokens.weight", "draft.lm_head.weight"}


def test_a_torch_without_muon_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UsageError, match="no Muon") as refused:
        trained(tmp_path / "run", optimiser="muon")
    assert "torch>=2.9" in refused.value.hint


def test_frozen_parameters_stay_as_they_are(tmp_path: Path) -> None:
    objective = ToyObjective()
    objective.draft.lm_head.requires_grad_(False)
    before = objective.draft.lm_head.weight.clone()
    trained(tmp_path / "run", objective=objective, weight_decay=0.1)
    assert torch.equal(objective.draft.lm_head.weight, before)
    state = tensors_of(newest(tmp_path / "run"))
    assert not any(name.startswith("moments/draft.lm_head") for name in state)


def test_held_out_rows_that_are_not_numbers_or_not_there(tmp_path: Path) -> None:
    done = trained(tmp_path / "run", held_out=ToyRows(2, poison=(1,)))
    assert (done.exit_code, done.epochs) == (0, 1)
    assert done.held_out is not None
    assert done.held_out["loss"] is None
    with pytest.raises(UsageError, match="held out hold no row"):
        trained(tmp_path / "none", held_out=ToyRows(0))
    assert not (tmp_path / "none").exists()


def test_held_out_rows_are_judged_by_what_the_last_step_was_trained_on(tmp_path: Path) -> None:
    seen: list[float] = []

    class Staged(ToyObjective):
        def at(self, progress: float) -> float:
            seen.append(progress)
            return 1.0

    trained(tmp_path / "run", ToyRows(2), Staged(), held_out=ToyRows(1), epochs=2)
    assert seen == [0.0, 0.25, 0.25, 0.5, 0.75, 0.75]


def test_data_without_any_answer_are_said_to_teach_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(ToyRows):
        def load(self, epoch: int, row: int) -> Batch:
            batch = super().load(epoch, row)
            return replace(batch, loss_mask=batch.loss_mask & False)

    said: list[str] = []
    monkeypatch.setattr("spec_convert.training.trainer.processes.say", said.append)
    trained(tmp_path / "run", Silent(4))
    assert any("no loss_mask marks an answer" in line for line in said)


def test_a_gpu_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="there is no GPU 2: torch sees 2"):
        trained(tmp_path / "run", device="cuda:2")


def test_metrics_are_counted_at_the_steps_that_measure(tmp_path: Path) -> None:
    trained(tmp_path / "run", ToyRows(6), log_every=2, measure_every=4)
    lines = log(tmp_path / "run")
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert [line["tau"] is None for line in lines] == [True, False, True]
    assert all(line["loss"] > 0 for line in lines)


def test_a_line_of_the_log_is_of_all_steps_since_the_last(tmp_path: Path) -> None:
    trained(tmp_path / "each", ToyRows(2), log_every=1)
    trained(tmp_path / "both", ToyRows(2), log_every=2)
    first, second = (line["losses"] for line in log(tmp_path / "each"))
    (both,) = (line["losses"] for line in log(tmp_path / "both"))
    one, two = (ToyObjective().weights(ToyRows(2).load(0, row)) for row in (0, 1))
    assert both == pytest.approx(((torch.tensor(first) * one + torch.tensor(second) * two) / (one + two)).tolist())


def test_what_cannot_be_carried_out_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for plan, match in (
        ({"epochs": None}, "nothing says when"), ({"optimiser": "sgd"}, "no optimiser `sgd`"), ({"lr": 0.0}, "above 0"),
        ({"keep_states": 0}, "keep_states must be at least 1"), ({"clip": 0.0}, "clips"),
        ({"device": "abacus"}, "abacus"), ({"device": "meta"}, "no device `meta` to train on"),
        ({"parallelism": "ddp"}, "torchrun"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=match):
            trained(tmp_path / "run", **plan)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="2 processes would each train"):
        trained(tmp_path / "run")
    monkeypatch.delenv("WORLD_SIZE")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write into"):
        trained(tmp_path / "file")
    assert not (tmp_path / "run").exists()
