"""Stages at work: what a run leaves, how it fails, is stopped and goes on, and where else its stages may run."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from spec_convert.training.pipeline import running
from spec_convert.training.pipeline.interpreters import PACKAGE

from .conftest import Place, in_this_process

README = Path(__file__).parents[3] / "README.md"


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not there():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.long
def test_from_conversations_to_an_evaluated_draft_by_one_command(place: Place) -> None:
    answered = {"engine": "transformers", "max_tokens": 6}
    place.ask(top={"max_samples": 8}, held_out={"sources": "others.jsonl"}, regenerate=answered)
    ran = place.run()
    assert ran.code == 0, ran.err
    draft = place.folder / "training" / "best"
    assert f"  spec-convert serve {draft}\n" in ran.out
    evaluation = json.loads((place.folder / "evaluation.json").read_text())
    assert f"{evaluation['mean_acceptance_length']:.3f} tokens per verifier pass" in ran.out
    assert evaluation["lossless"] is True
    assert json.loads((place.folder / "validation.json").read_text())["summary"]["errors"] == 0
    assert {stage["state"] for stage in place.stages.values()} == {"done"}
    assert "8 of 8 rows" in ran.err, "what stages say is shown"
    assert "8 of 8 rows" in place.log("prepare"), "and kept"
    assert "tokens per verifier pass" in ran.err, "as is what they print"
    assert place.run().err.count("skipped, done") == len(place.stages)


def test_the_record_is_what_other_programs_read(finished: Place) -> None:
    record = json.loads((finished.folder / "run.json").read_text())
    assert (record["schema_version"], record["kind"]) == (1, "pipeline")
    assert record["settings"]["train"]["draft"] == "eagle3"
    train = record["stages"]["train"]
    assert {"state", "inputs", "command", "started", "seconds", "log", "outputs"} <= set(train)
    assert (train["state"], train["log"], train["outputs"]) == ("done", "logs/train.log", ["training"])
    assert train["command"][1:4] == ["-m", "spec_convert", "train"]


def test_a_changed_option_moves_the_old_output_aside_and_runs_no_stage_before(finished: Place) -> None:
    before = {name: (finished.folder / name).stat().st_mtime_ns for name in ("prepared", "states", "training")}
    old = (finished.folder / "validation.json").read_text()
    finished.ask(validate={"level": "headers"})
    ran = finished.run("--to", "validate")
    assert ran.code == 0, ran.err
    assert f"What was there, validation.json, is kept in {finished.folder}/replaced-1" in ran.err
    assert (finished.folder / "replaced-1" / "validation.json").read_text() == old
    assert (finished.folder / "replaced-1" / "report.html").exists(), "it spoke of another validation"
    assert json.loads((finished.folder / "validation.json").read_text())
    assert {name: (finished.folder / name).stat().st_mtime_ns for name in before} == before
    assert "train: skipped, done" in ran.err


def test_what_speaks_of_another_draft_does_not_stay(finished: Place, cli: Any) -> None:
    finished.ask(evaluate=None, validate={"select": "no-such-rule"})
    ran = cli("pipeline", "run.toml", "--from", "validate", "--to", "evaluate")
    assert ran.code == 2
    assert not (finished.folder / "evaluation.json").exists()
    assert (finished.folder / "replaced-1" / "evaluation.json").exists()
    assert "evaluate" not in finished.stages


def test_a_stage_that_fails_ends_the_run_with_its_code_its_log_and_what_to_type(finished: Place) -> None:
    finished.ask(validate={"select": "no-such-rule"})
    ran = finished.run()
    assert ran.code == 2
    log = finished.folder / "logs" / "validate.log"
    assert (
        f"error: the stage validate failed with exit code 2; its log is {log}; its command: {sys.executable}" in ran.err
    )
    assert "hint: to go on, once that is mended: spec-convert pipeline run.toml" in ran.err
    assert "no-such-rule" in log.read_text()
    assert finished.stages["validate"]["state"] == "failed"
    assert finished.stages["evaluate"]["state"] == "done", "it was not reached"
    assert finished.run("--to", "validate", "--json").code == 2
    ran = finished.run("--only", "validate")
    assert "mended: spec-convert pipeline run.toml --to validate" in ran.err, "--only would begin it anew"


def test_what_is_wrong_with_a_draft_is_evaluated_and_reported(
    finished: Place, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "run", in_this_process)
    much = {"level": "acceptance", "prompts": "asked.jsonl", "min_acceptance_length": 3.5, "limit": 1, "max_tokens": 8}
    finished.ask(validate=much, evaluate={"limit": 2})
    ran = cli("pipeline", "run.toml")
    assert ran.code == 1
    assert "error: the stage validate failed with exit code 1" in ran.err
    states = {name: stage["state"] for name, stage in finished.stages.items()}
    assert (states["validate"], states["evaluate"], states["report"]) == ("failed", "done", "done")
    assert "acceptance-too-low" in (finished.folder / "report.html").read_text()
    finished.ask(validate=much, evaluate={"prompts": "others.jsonl", "llm_arg": ["max_model_len=8"]})
    ran = cli("pipeline", "run.toml")
    assert ran.code == 2
    assert "error: the stage validate failed with exit code 1" in ran.err
    assert "error: the stage evaluate failed with exit code 2" in ran.err
    assert not (finished.folder / "report.html").exists(), "the next run makes it, of all of that"


def test_a_quiet_run_has_quiet_stages(finished: Place, cli: Any) -> None:
    assert "INFO" in cli("pipeline", "run.toml", "--only", "prepare").err
    assert "INFO" in finished.log("prepare")
    (finished.folder / "logs" / "prepare.log").unlink()
    ran = cli("--quiet", "pipeline", "run.toml", "--only", "prepare")
    assert ran.code == 0, ran.err
    assert "INFO" not in ran.err + finished.log("prepare")
    assert finished.stages["prepare"]["command"][1:5] == ["-m", "spec_convert", "--quiet", "prepare"]
    finished.ask(validate={"select": "no-such-rule"})
    ran = cli("--quiet", "pipeline", "run.toml", "--from", "validate")
    assert "mended: spec-convert --quiet pipeline run.toml\n" in ran.err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)]
)
def test_a_run_that_is_stopped_goes_on_by_the_same_command(number: signal.Signals, code: int, finished: Place) -> None:
    finished.ask(train={"epochs": 40, "save_steps": 10})
    metrics = finished.folder / "training" / "metrics.jsonl"
    process = finished.begin()
    wait_for((finished.folder / "replaced-1" / "training").exists, process)
    wait_for(lambda: metrics.exists() and bool(metrics.read_text()), process)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code, err
    assert f"Stopped by {number.name}" in err, "the stage has heard it, and once: it wrote its state"
    assert "Interrupted at train. To go on: spec-convert pipeline run.toml" in err
    assert finished.stages["train"]["state"] == "interrupted"
    assert not (finished.folder / "evaluation.json").exists(), "it spoke of another draft"
    assert finished.stages["evaluate"] == {"state": "waiting"}
    ran = finished.run("--to", "train")
    assert ran.code == 0, ran.err
    assert "train: goes on: it was interrupted" in ran.err
    assert "Going on from" in ran.err
    assert not (finished.folder / "replaced-2").exists()
    assert finished.stages["train"]["state"] == "done"


def test_two_runs_of_one_folder_do_not_meet(finished: Place, cli: Any) -> None:
    finished.ask(train={"epochs": 500})
    process = finished.begin("--to", "train")
    wait_for((finished.folder / "replaced-1" / "training").exists, process)
    ran = cli("pipeline", "run.toml", "--to", "train")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert ran.code == 2
    assert f"another pipeline is writing into {finished.folder}" in ran.err


# -- other interpreters


def test_a_stage_runs_in_the_interpreter_that_its_table_names(finished: Place) -> None:
    other = finished.path / "env" / "bin" / "python"
    other.parent.mkdir(parents=True)
    other.write_text(f'#!/bin/sh\necho "$3" >> {finished.path}/asked-for\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    finished.ask(validate={"python": "env/bin/python"})
    ran = finished.run("--only", "validate")
    assert ran.code == 0, ran.err
    assert (finished.path / "asked-for").read_text().split() == ["--version", "validate"]
    assert finished.stages["validate"]["command"][0] == str(other)
    assert "validate: skipped, done" in finished.run("--to", "validate").err, "where it ran changes no result"


def test_an_interpreter_without_spec_convert_is_refused_at_once(place: Place, cli: Any) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place.path / "bare"], check=True)
    place.ask(evaluate={"python": "bare/bin/python"})
    ran = cli("pipeline", "run.toml")
    assert ran.code == 2
    assert f"{place.path}/bare/bin/python has no spec_convert that runs: " in ran.err
    assert f"hint: {place.path}/bare/bin/python -m pip install '{PACKAGE}'" in ran.err
    assert f"pip install '{PACKAGE}'" in README.read_text(), "one line everywhere"
    assert not place.folder.exists()


def test_an_interpreter_with_another_version_is_refused(place: Place, cli: Any) -> None:
    other = place.path / "python"
    other.write_text("#!/bin/sh\necho spec-convert, version 99\n")
    other.chmod(0o755)
    place.ask(top={"python": "python"})
    assert "python has spec-convert 99, and this is" in cli("pipeline", "run.toml").err


# -- several processes


@pytest.mark.long
def test_several_processes_are_started_by_torchrun(finished: Place) -> None:
    finished.ask(train={"processes": 2, "epochs": 30})
    process = finished.begin("--to", "train")
    metrics = finished.folder / "training" / "metrics.jsonl"
    wait_for((finished.folder / "replaced-1" / "training").exists, process)
    wait_for(lambda: metrics.exists() and bool(metrics.read_text()), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143, err
    assert finished.stages["train"]["state"] == "interrupted"
    ran = finished.run("--to", "train")
    assert ran.code == 0, ran.err
    assert "Going on from" in ran.err
    command = shlex.join(finished.stages["train"]["command"])
    assert "-m torch.distributed.run --standalone --nproc-per-node 2 -m spec_convert train" in command
    assert command.endswith("--parallel ddp")
    assert json.loads((finished.folder / "training" / "run.json").read_text())["processes"] == 2
    assert load_file(finished.folder / "training" / "epoch_0030" / "model.safetensors")


def test_as_many_processes_as_gpus_unless_the_file_says_otherwise(place: Place, cli: Any) -> None:
    def command(**train: Any) -> str:
        place.ask(train={"device": ..., "processes": ..., **train})
        rows = cli("pipeline", "run.toml", "--to", "train", "--dry-run", "--json").json["stages"]
        return shlex.join(rows[-1]["command"])

    seen = place.path / "python"
    seen.write_text(f'#!/bin/sh\n[ "$1" = -c ] && echo 8 || exec {sys.executable} "$@"\n')
    seen.chmod(0o755)
    assert "--nproc-per-node 8 " in command(python="python")
    assert "torch.distributed" not in command(python="python", device="cuda:1")
    assert "torch.distributed" not in command(python="python", processes=1)
    blind = place.path / "blind"
    blind.write_text(seen.read_text().replace("echo 8", "echo 0"))
    blind.chmod(0o755)
    assert "--nproc-per-node 1 " in command(python="blind", parallel="ddp"), "on a CPU"
    assert "torch.distributed" not in command(python="blind")
    fsdp = command(python="python", parallel="fsdp", processes=1)
    assert "--nproc-per-node 1 " in fsdp
    assert fsdp.endswith("--parallel fsdp")
