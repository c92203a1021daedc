"""Whatever interrupts a demo, the same command goes on from there and ends with the same draft."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from .conftest import Told
from .test_story import stages_of

# What is read on stderr before the signal is sent, which stage is at work then, and what becomes of it.
INTERRUPTIONS = [
    ("$ spec-convert regenerate demo/questions", "regenerate", signal.SIGINT, "interrupted"),
    ("tokenising 148 rows", "prepare", signal.SIGKILL, "running"),
    ("Loading ", "generate", signal.SIGINT, "interrupted"),
    ("step 10 of ", "train", signal.SIGINT, "interrupted"),
    ("Going on from ", "train", signal.SIGKILL, "running"),
    ("Answering ", "evaluate", signal.SIGINT, "interrupted"),
]


def stop_at(process: subprocess.Popen[str], mark: str, at_work: Callable[[], bool], number: signal.Signals) -> str:
    """Sends the signal once ``mark`` is read and the stage is at work; returns what was said on stderr."""
    said: list[str] = []
    assert process.stderr is not None
    assert process.stdout is not None
    with process:
        readers = [Thread(target=said.extend, args=[process.stderr]), Thread(target=process.stdout.read)]
        for reader in readers:
            reader.start()
        while process.poll() is None and not (any(mark in line for line in said) and at_work()):
            time.sleep(0.01)
        process.send_signal(number)
        for reader in readers:
            reader.join()
    return "".join(said)


def test_a_training_that_is_interrupted_goes_on_to_the_same_draft(
    finished: Path,
    undisturbed: tuple[Path, Told],
    begin: Callable[[Path], subprocess.Popen[str]],
    tell: Callable[[Path], Told],
) -> None:
    shutil.rmtree(finished / "training")
    process = begin(finished)
    said = stop_at(process, "step 10 of ", lambda: True, signal.SIGINT)
    assert process.returncode == 130
    assert state_of(finished, "train") == "interrupted"
    assert said.count("Done before") == 8  # the verifier, and seven commands
    assert "Stopped. To go on: `spec-convert demo --folder demo --epochs 1`" in said
    told = tell(finished)
    assert "Going on from " in told.err
    assert told.code == 0, told.err
    same = "training/best/model.safetensors"
    assert (finished / same).read_bytes() == (undisturbed[0] / same).read_bytes()


@pytest.mark.long
def test_interrupted_in_every_chapter_it_ends_with_the_same_draft(
    fresh: Path,
    undisturbed: tuple[Path, Told],
    begin: Callable[[Path], subprocess.Popen[str]],
    tell: Callable[[Path], Told],
) -> None:
    for mark, stage, number, state in INTERRUPTIONS:
        process = begin(fresh)
        said = stop_at(process, mark, lambda name=stage: state_of(fresh, name) == "running", number)  # type: ignore[misc]
        assert state_of(fresh, stage) == state, said
        assert [name for name, known in stages_of(fresh).items() if known["state"] != "done"] == [stage]
        assert process.returncode == (130 if number == signal.SIGINT else -number)
        if number == signal.SIGINT:
            assert "Stopped. To go on: `spec-convert demo --folder demo --epochs 1`" in said
    told = tell(fresh)
    assert told.code == 0, told.err
    assert all(known["state"] == "done" for known in stages_of(fresh).values())
    whole = undisturbed[0]
    for name in ("answered.jsonl", "training/best/model.safetensors", "converted/model.safetensors"):
        assert (fresh / name).read_bytes() == (whole / name).read_bytes(), name
    accepted = [json.loads((folder / "evaluation.json").read_text())["accepted"] for folder in (fresh, whole)]
    assert accepted[0] == accepted[1]


def state_of(folder: Path, stage: str) -> object:
    return stages_of(folder).get(stage, {}).get("state") if (folder / "run.json").exists() else None


def test_two_demos_in_one_folder_do_not_meet(
    fresh: Path, begin: Callable[[Path], subprocess.Popen[str]], tell: Callable[[Path], Told]
) -> None:
    second: list[Told] = []

    def met() -> bool:
        if state_of(fresh, "regenerate") != "running":
            return False
        second.append(tell(fresh))
        return True

    stop_at(begin(fresh), "$ spec-convert regenerate", met, signal.SIGINT)
    assert second[0].code == 2
    assert "error: another demo is writing into demo\n" in second[0].err
    assert "Stopped" not in second[0].err
