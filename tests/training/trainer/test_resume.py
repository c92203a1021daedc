"""A training that is killed, or stopped, goes on to the very bits of one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from spec_convert.training.trainer.folder import all_states

from .conftest import Runs
from .toy import identical, tensors_of

OFTEN = {"save_every_steps": 3, "accumulation": 2, "keep_states": 2, "clip": 0.5, "weight_decay": 0.1, "warmup": 0.2}


def newest(folder: Path) -> Path:
    return all_states(folder / "states")[-1]


def log(folder: Path) -> list[dict[str, Any]]:
    """What was logged, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "tokens_per_second"} for line in lines]


def same(one: Path, other: Path) -> bool:
    tensors = [tensors_of(newest(folder)) for folder in (one, other)]
    assert any("exp_avg" in name for name in tensors[0])
    return newest(one).name == newest(other).name and identical(*tensors) and log(one) == log(other)


@pytest.fixture(scope="module")
def undisturbed(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert runs(folder, rows=(9, 10), plan=OFTEN, held_out=3) == 0
    return folder


def killed_and_resumed(runs: Runs, folder: Path, kill_at: int) -> int:
    """How many half-written things the kill left behind."""
    again: dict[str, Any] = {"rows": (9, 10), "plan": OFTEN, "held_out": 3}
    assert runs(folder, kill_at=kill_at, **again) == -signal.SIGKILL
    left = len(list((folder / "states").glob(".*")))
    assert runs(folder, **again) == 0
    assert {path.name for path in (folder / "states").iterdir()} == {"step_000009", "step_000010"}
    return left


@pytest.mark.parametrize("share", [0.4, 0.97])
def test_a_run_that_is_killed_ends_with_the_same_bits(
    runs: Runs, undisturbed: Path, tmp_path: Path, share: float
) -> None:
    killed_and_resumed(runs, tmp_path / "run", int(share * touches(undisturbed)))
    assert same(tmp_path / "run", undisturbed)


@pytest.mark.long
def test_so_does_one_that_is_killed_at_any_touch_of_its_folder(runs: Runs, undisturbed: Path, tmp_path: Path) -> None:
    left = 0
    for kill_at in range(1, touches(undisturbed) + 1):
        left += killed_and_resumed(runs, tmp_path / str(kill_at), kill_at)
        assert same(tmp_path / str(kill_at), undisturbed), f"killed at touch {kill_at}"
    assert left > 10, "kills came while states were written"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)]
)
def test_a_run_that_is_asked_to_stop_writes_its_state_and_goes_on_to_the_same_bits(
    runs: Runs, undisturbed: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "run"
    plan = {**OFTEN, "save_every_steps": None}
    (process,) = runs.begin(folder, rows=(9, 10), plan=plan, held_out=3, slow=0.02)
    wait_for(folder / "metrics.jsonl")
    os.kill(process, number)
    assert runs.ended() == [code]
    stopped = newest(folder)
    assert 0 < int(stopped.name[5:11]) < 10
    assert runs(folder, rows=(9, 10), plan=OFTEN, held_out=3) == 0
    assert same(folder, undisturbed)


def wait_for(path: Path) -> None:
    """Until the file has a line."""
    deadline = time.monotonic() + 60
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def touches(folder: Path) -> int:
    return int((folder / "touches").read_text())
