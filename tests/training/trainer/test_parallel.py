"""Two processes train what one trains with twice the accumulation, and resume to the very bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import PLAN, Runs
from .test_resume import log, newest, same, wait_for
from .toy import tensors_of

ROWS = (5, 6)  # with four rows a step, the last ones of the epochs have one and two


def weights_differ_by(one: Path, other: Path) -> float:
    mine, theirs = (tensors_of(newest(folder)) for folder in (one, other))
    assert mine.keys() == theirs.keys()
    return max(float((mine[name].double() - theirs[name].double()).abs().max()) for name in mine)


@pytest.fixture(scope="module")
def alone(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert runs(folder, rows=ROWS, plan={"accumulation": 4}, held_out=3) == 0
    return folder


@pytest.mark.parametrize("parallelism", ["ddp", "fsdp"])
def test_two_processes_train_as_one_with_twice_the_accumulation(
    runs: Runs, alone: Path, tmp_path: Path, parallelism: str
) -> None:
    folder = tmp_path / "run"
    plan = {"accumulation": 2, "parallelism": parallelism}
    assert runs(folder, rows=ROWS, plan=plan, held_out=3, processes=2) == 0
    assert weights_differ_by(folder, alone) < 1e-6
    assert len(log(folder)) == len(log(alone)) == 4
    for line, other in zip(log(folder), log(alone), strict=True):
        assert line.pop("losses") == pytest.approx(other.pop("losses"), rel=1e-6)
        for name in ("loss", "gradient_norm"):
            assert line.pop(name, 0) == pytest.approx(other.pop(name, 0), rel=1e-5)
        assert line == other
    draft = torch.load(folder / "epoch_0002" / "draft.pt")["tensors"]
    state = tensors_of(newest(folder))
    assert draft.keys() == {name.removeprefix("weights/draft.") for name in state if name.startswith("weights/draft.")}
    assert all(torch.equal(tensor, state[f"weights/draft.{name}"]) for name, tensor in draft.items())


@pytest.mark.parametrize("parallelism", [pytest.param("ddp", marks=pytest.mark.long), "fsdp"])
def test_two_processes_that_are_killed_or_stopped_end_with_the_same_bits(
    runs: Runs, tmp_path: Path, parallelism: str
) -> None:
    plan = {"accumulation": 2, "parallelism": parallelism, "save_every_steps": 1}
    again: dict[str, Any] = {"rows": (9, 9), "plan": plan, "held_out": 3, "processes": 2}
    assert runs(tmp_path / "undisturbed", **again) == 0
    folder = tmp_path / "run"
    kill_at = int((tmp_path / "undisturbed" / "touches").read_text()) // 3
    runs.begin(folder, kill_at=kill_at, **again)
    assert -signal.SIGKILL in runs.ended()
    killed_at = newest(folder).name
    processes = runs.begin(folder, slow=0.05, **again)
    while newest(folder).name == killed_at:
        os.sched_yield()
    os.kill(processes[1], signal.SIGTERM)  # one hears it, both stop
    assert runs.ended() == [143, 143]
    assert newest(folder).name < "step_000006"
    assert runs(folder, **again) == 0
    assert same(folder, tmp_path / "undisturbed")


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
    assert not list((folder / "states").glob("step_000004"))
    subprocess.run([sys.executable, *command, json.dumps(run)], env=environment, check=True)
    assert weights_differ_by(folder, alone) < 1e-6
