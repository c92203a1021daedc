"""Metrics, schedules, the log and trackers: numbers that can be checked by hand."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from spec_convert.errors import UsageError
from spec_convert.narration import listen
from spec_convert.training.objectives.sums import Sums
from spec_convert.training.trainer.journal import Journal
from spec_convert.training.trainer.metrics import metrics_of
from spec_convert.training.trainer.plan import ScheduleName
from spec_convert.training.trainer.recording import Tracking
from spec_convert.training.trainer.schedules import rate_at
from spec_convert.training.trainer.trackers import TRACKERS

from .test_training import trained
from .toy import ToyRows


def sums(**numbers: list[float]) -> Sums:
    zero = Sums.zero(len(next(iter(numbers.values()))))
    given = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
    return Sums(*(given.get(name, getattr(zero, name)) for name in Sums.__slots__))


def test_a_perfect_draft_scores_one_more_than_its_steps() -> None:
    counted = [70.0, 50.0, 30.0]
    perfect = metrics_of(sums(rows=counted, hits=counted, windows=counted, joint=counted, alpha=counted), torch.ones(3))
    assert perfect.tau == 4.0
    assert perfect.accuracy == perfect.joint == perfect.conditional == perfect.alpha == [1.0, 1.0, 1.0]


def test_ratios_are_formed_of_sums_by_hand() -> None:
    found = metrics_of(
        sums(loss=[6, 3], weight=[3, 2], rows=[10, 5], hits=[5, 1], windows=[8, 4], joint=[4, 1], alpha=[6, 1]),
        torch.tensor([1.0, 0.5]),
    )
    assert found.losses == [2.0, 1.5]
    assert found.loss == 2.0 + 0.5 * 1.5
    assert (found.accuracy, found.joint, found.conditional) == ([0.5, 0.2], [0.5, 0.25], [0.5, 0.5])
    assert (found.alpha, found.tau) == ([0.75, 0.25], 1.75)
    assert dict(found)["joint_1"] == 0.25


def test_what_was_not_counted_is_not_a_number() -> None:
    nothing = metrics_of(Sums.zero(2), torch.ones(2))
    assert nothing.loss is nothing.tau is None
    assert nothing.joint == nothing.conditional == [None, None]
    assert dict(nothing) == {}
    no_long_chain = metrics_of(sums(windows=[4, 0], joint=[4, 0]), torch.ones(2))
    assert no_long_chain.tau is None, "not the tau of a draft with fewer steps"
    never_right = metrics_of(sums(windows=[4, 2], joint=[0, 0]), torch.ones(2))
    assert (never_right.conditional, never_right.tau) == ([0.0, None], 1.0)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("linear", [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("cosine", [0.5, 1, 1, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]),
    ],
)
def test_learning_rates_by_hand(schedule: ScheduleName, rates: list[float]) -> None:
    found = [rate_at(step, total=10, schedule=schedule, warmup=0.2) for step in range(10)]
    assert found == pytest.approx(rates, abs=1e-4)


def test_wsd_falls_in_the_last_tenth() -> None:
    found = [rate_at(step, total=20, schedule="wsd", warmup=0.0) for step in range(20)]
    assert found == pytest.approx([1.0] * 19 + [0.5])
    assert rate_at(4, total=5, schedule="linear", warmup=1.0) == 1.0


def test_a_log_that_is_opened_again_keeps_the_lines_that_count(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    journal = Journal(path, lines=2)
    journal.write({"step": 3, "loss": None})
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3, "loss": null}\n', "written at once"
    journal.close()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Callable[[io.StringIO, Path], list[str]]:
    """What a training of 20 steps in two epochs says on this stream; carriage returns end lines too."""

    def run(stream: io.StringIO, folder: Path) -> list[str]:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("NO_COLOR", "1")  # the logger is made once for all tests
        listen()
        trained(folder, ToyRows(10), epochs=2, held_out=ToyRows(1), log_every=5, measure_every=5)
        listen(wanted=False)
        return stream.getvalue().replace("\x1b[A", "").replace("\r", "\n").splitlines()

    return run


def test_on_a_terminal_loss_and_tau_stand_beside_a_bar(
    heard: Callable[[io.StringIO, Path], list[str]], tmp_path: Path
) -> None:
    lines = heard(Terminal(), tmp_path)
    last = [line for line in lines if "/20 [" in line][-1]
    assert last.startswith("100%")
    assert re.search(r"20/20 \[.*step/s, loss \d+\.\d{3}, tau \d\.\d{3}\]", last)
    assert len([line for line in lines if line.startswith("INFO    Held out, after epoch ")]) == 2
    assert not any("minutes to go" in line or " s to go" in line for line in lines)


def test_elsewhere_lines_say_it_the_first_at_once(
    heard: Callable[[io.StringIO, Path], list[str]], tmp_path: Path
) -> None:
    lines = heard(io.StringIO(), tmp_path)
    told = [line for line in lines if "INFO    step " in line]
    assert re.fullmatch(r"INFO    step 5 of 20, loss .*, tau .*, [\d,]+ tokens/s, about \d+ s to go", told[0])
    assert not any("/20 [" in line for line in lines)


def test_a_training_that_goes_on_begins_its_bar_where_it_stopped(
    heard: Callable[[io.StringIO, Path], list[str]], tmp_path: Path
) -> None:
    heard(io.StringIO(), tmp_path)
    assert any("20/20 [" in line for line in heard(Terminal(), tmp_path))


def test_trackers_that_are_unknown_or_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no logger `tensorbord`") as refused:
        trained(tmp_path / "run", track=Tracking(names=("tensorbord",)))
    assert "did you mean `tensorboard`" in refused.value.hint
    monkeypatch.setattr("spec_convert.training.trainer.trackers.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="wandb is not installed") as refused:
        trained(tmp_path / "run", track=Tracking(names=("wandb",)))
    assert refused.value.hint == "pip install wandb"
    assert not (tmp_path / "run").exists()


TRAIN = """
import sys
from pathlib import Path
from toy import ToyObjective, ToyRows, save_draft
from spec_convert.training.trainer.plan import Plan
from spec_convert.training.trainer.processes import joined
from spec_convert.training.trainer.recording import Tracking
from spec_convert.training.trainer.training import train

name, folder, epochs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
plan = Plan(lr=0.01, seed=1, max_steps=epochs * 4, schedule="constant", log_every=2, measure_every=2, device="cpu")
with joined(plan) as processes:
    train(
        ToyObjective(), ToyRows(4), plan, folder, processes=processes, save=save_draft, request={"of": "a toy"},
        held_out=ToyRows(2), track=Tracking(names=(name,), log_dir=folder / "tracked", run_name="toy"),
    )
"""


@pytest.mark.parametrize("name", TRACKERS)
def test_a_real_tracker_takes_the_numbers(tmp_path: Path, name: str) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", TRAIN, name, str(tmp_path / "run"), "1"], env=environment, check=True)
    written = [path for path in (tmp_path / "run" / "tracked").rglob("*") if path.is_file()]
    assert written
    if name == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "run" / "tracked" / "toy")).Reload()
        lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        taus = [(line["step"], line["tau"]) for line in lines if line["kind"] == "train"]
        found = [(event.step, event.value) for event in events.Scalars("train/tau")]
        assert found == [(step, pytest.approx(tau)) for step, tau in taus]
    assert any(b"joint_0" in path.read_bytes() for path in written)
