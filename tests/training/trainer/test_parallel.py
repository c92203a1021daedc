"""Two processes train what one trains with twice the accumulation, and resume to the very bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import PLAN, Runs
from .test_resume import log, newest, same, touches, wait_for
from .toy import tensors_of

ROWS = (9, 10)  # with four rows a step, the last ones of the epochs have one and two


def weights_differ_by(one: Path, other: Path) -> float:
    mine, theirs = (tensors_of(newest(folder)) for folder in (one, other))
    assert mine.keys() == theirs.keys()
    return max(float((mine[name].double() - theirs[name].double()).abs().max()) for name in mine)


@pytest.fixture(scope="module")
def alone(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert runs(folder, rows=ROWS, plan={"accumulation": 4}, held_out=3) == 0
    return folder


@pytest.fixture(scope="module")
def undisturbed(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """A run on so many processes, which the tests below look at."""

    @cache
    def make(parallelism: str, processes: int) -> Path:
        folder = tmp_path_factory.mktemp(parallelism) / "run"
        assert runs(folder, **shared(parallelism, processes)) == 0
        return folder

    return make


def shared(parallelism: str, processes: int) -> dict[str, Any]:
    """The same four rows a step, read by so many."""
    plan = {"accumulation": 4 // processes, "parallelism": parallelism, "save_every_steps": 1}
    return {"rows": ROWS, "plan": plan, "held_out": 3, "processes": processes}


@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_two_processes_train_as_one_with_twice_the_accumulation(
    undisturbed: Callable[[str, int], Path], alone: Path, parallelism: str
) -> None:
    folder = undisturbed(parallelism, 2)
    assert weights_differ_by(folder, alone) < 1e-6
    assert len(log(folder)) == len(log(alone)) == 5
    for line, other in zip(log(folder), log(alone), strict=True):
        assert line.pop("losses") == pytest.approx(other.pop("losses"), rel=1e-6)
        for name in ("loss", "gradient_norm"):
            assert line.pop(name, 0) == pytest.approx(other.pop(name, 0), rel=1e-5)
        assert line == other
    draft = torch.load(folder / "epoch_0002" / "draft.pt")["tensors"]
    state = tensors_of(newest(folder))
    assert draft.keys() == {name.removeprefix("weights/draft.") for name in state if name.startswith("weights/draft.")}
    assert all(torch.equal(tensor, state[f"weights/draft.{name}"]) for name, tensor in draft.items())


@pytest.mark.parametrize(("parallelism", "processes"), [("fsdp", 2), pytest.param("ddp", 4, marks=pytest.mark.long)])
def test_processes_that_are_killed_or_stopped_end_with_the_same_bits(
    runs: Runs, undisturbed: Callable[[str, int], Path], tmp_path: Path, parallelism: str, processes: int
) -> None:
    """Four: two parts of a gradient have one sum, those of more have it by the order that they are added in."""
    again = shared(parallelism, processes)
    whole = undisturbed(parallelism, processes)
    folder = tmp_path / "run"
    kill_at = touches(whole) // 3
    runs.begin(folder, kill_at=kill_at, **again)
    assert -signal.SIGKILL in runs.ended()
    killed_at = newest(folder).name
    started = runs.begin(folder, slow=0.05, **again)
    while newest(folder).name == killed_at:
        time.sleep(0.005)
    os.kill(started[1], signal.SIGTERM)  # one hears it, all stop
    assert runs.ended() == [143] * processes
    assert newest(folder).name < newest(whole).name
    assert runs(folder, **again) == 0
    assert same(folder, whole)


def test_muon_of_sharded_weights_is_muon(runs: Runs, tmp_path: Path) -> None:
    """It orthogonalises whole matrices, in bfloat16: parts of them would give other updates altogether."""
    plan = {"optimiser": "muon", "epochs": 1}
    assert runs(tmp_path / "alone", rows=(4,), plan={**plan, "accumulation": 2}) == 0
    assert runs(tmp_path / "two", rows=(4,), plan={**plan, "parallelism": "fsdp"}, processes=2) == 0
    assert weights_differ_by(tmp_path / "alone", tmp_path / "two") < 2e-4


@pytest.mark.long
def test_torchrun_starts_and_stops_them(runs: Runs, alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    plan = {**PLAN, "accumulation": 2, "parallelism": "fsdp"}
    run = {"folder": str(folder), "plan": plan, "rows": ROWS, "held_out": 3, "slow": 0.3}
    command = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(Path(__file__).with_name("toy.py")),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    first = subprocess.Popen([sys.executable, *command, json.dumps(run)], env=environment)
    wait_for(folder / "metrics.jsonl")
    first.send_signal(signal.SIGTERM)
    assert first.wait() != 0
    assert not list((folder / "states").glob("step_000006"))
    subprocess.run([sys.executable, *command, json.dumps(run)], env=environment, check=True)
    assert weights_differ_by(folder, alone) < 1e-6
