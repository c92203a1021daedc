"""A place with a small verifier, conversations and the file of a run, and what became of such a run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import datasets
import pytest

from spec_convert.cli import run
from spec_convert.training.pipeline import running
from spec_convert.training.pipeline.process import Ended, Heard

from ...cli.conftest import Ran, _plain_environment, cli  # noqa: F401  as tests of the command line run them

COMMAND = (sys.executable, "-m", "spec_convert", "pipeline")
QUESTIONS = [{"prompt": f"Say {number} twice", "response": f"{number} and {number}"} for number in range(24)]
TOP = {"folder": "run", "verifier": "verifier", "sources": ["learned.jsonl"]}
TABLES: dict[str, dict[str, Any]] = {
    "prepare": {"seq_length": 128, "num_proc": 1},
    "generate": {"engine": "transformers", "dtype": "float32"},
    "vocab": {"draft_vocab_size": 100},
    "train": {
        "draft": "eagle3", "target_layers": [1, 3, 5], "epochs": 2, "total_seq_len": 128, "ttt_steps": 2,
        "processes": 1, "device": "cpu",
    },
    "evaluate": {"prompts": "asked.jsonl", "limit": 1, "max_tokens": 8},
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """The folder in which a user stands, with `run.toml`, whose run lies in `run`."""

    path: Path

    def ask(self, *, top: dict[str, Any] | None = None, **tables: Any) -> None:
        """Write the file: `ask(train={"epochs": 3})` changes a key, ... removes it, `ask(vocab=None)` a table."""
        lines = [f"{key} = {toml(value)}" for key, value in {**TOP, **(top or {})}.items()]
        for name in {**TABLES, **tables}:
            if (changes := tables.get(name, {})) is not None:
                table = {key: value for key, value in (TABLES.get(name, {}) | changes).items() if value is not ...}
                lines += [f"[{name}]", *(f"{key} = {toml(value)}" for key, value in table.items())]
        (self.path / "run.toml").write_text("\n".join(lines) + "\n")

    def begin(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, "run.toml", *args], cwd=self.path, env=os.environ | self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *args: str) -> Ran:
        process = self.begin(*args)
        out, err = process.communicate()
        return Ran(code=process.returncode, out=out, err=err)

    @property
    def environment(self) -> dict[str, str]:
        return {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(self.path.parent / "cache")}

    @property
    def folder(self) -> Path:
        return self.path / "run"

    @property
    def stages(self) -> dict[str, Any]:
        stages: dict[str, Any] = json.loads((self.folder / "run.json").read_text())["stages"]
        return stages

    def log(self, stage: str) -> str:
        return (self.folder / "logs" / f"{stage}.log").read_text()


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


def make_place(path: Path, verifier: Path) -> Place:
    path.mkdir(parents=True, exist_ok=True)
    shutil.copytree(verifier, path / "verifier")
    for name, rows in (("learned", QUESTIONS[:16]), ("others", QUESTIONS[16:20]), ("asked", QUESTIONS[20:])):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = Place(path)
    place.ask()
    return place


def in_this_process(command: Sequence[str], log: Path, heard: Heard) -> Ended:
    """A stage as `process.run` would run it, without what a process costs. `test_run.py` runs them for real."""
    with redirect_stdout(StringIO()):
        code = run(list(command[command.index("spec_convert") + 1 :]))
    log.parent.mkdir(exist_ok=True)
    log.touch()
    return Ended(code, 2.0)


@pytest.fixture(scope="session")
def _finished(verifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = make_place(tmp_path_factory.mktemp("finished") / "place", verifier)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.path)
        patch.setattr(running, "run", in_this_process)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", place.path.parent / "cache")
        assert run(["pipeline", "run.toml"]) == 0
    return place.path


@pytest.fixture
def finished(_finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A run that is done, to do with as a test likes. The test stands in its place."""
    place = Place(shutil.copytree(_finished, tmp_path / "place", symlinks=True))
    record = place.folder / "run.json"
    record.write_text(record.read_text().replace(str(_finished), str(place.path)))  # as if it had run here
    monkeypatch.chdir(place.path)
    return place


@pytest.fixture
def place(verifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """One where nothing was run yet. The test stands in it."""
    made = make_place(tmp_path / "place", verifier)
    monkeypatch.chdir(made.path)
    return made


@pytest.fixture
def plan(cli: Callable[..., Ran]) -> Callable[..., dict[str, str]]:  # noqa: F811
    """`plan("--from", "train")` is what a dry run says: why each stage that would run does."""

    def ask(*args: str) -> dict[str, str]:
        ran = cli("pipeline", "run.toml", "--dry-run", "--json", *args)
        assert ran.code == 0, ran.err
        return {row["stage"]: row["why"] for row in ran.json["stages"] if row["runs"]}

    return ask
