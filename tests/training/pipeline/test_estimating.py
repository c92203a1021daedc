"""What a dry run says of sizes and times: what was measured, what is rough, and what nobody knows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from spec_convert.training.pipeline.machine import flops

from .conftest import QUESTIONS, Place
from .test_plan import DRY

Rows = Callable[[], dict[str, dict[str, Any]]]
TORCH = "torch_dtype"
STATES = 4 * 64 * 4 + 5  # bytes a token: four layers of float32, an id and its mask


@pytest.fixture
def rows(cli: Any) -> Rows:
    def ask() -> dict[str, dict[str, Any]]:
        ran = cli(*DRY)
        assert ran.code == 0, ran.err
        return {row["stage"]: row for row in ran.json["stages"]}

    return ask


def test_before_the_first_run_figures_are_rough_or_unknown(place: Place, rows: Rows) -> None:
    found = rows()
    guessed = sum(len(json.dumps(row)) // 4 for row in QUESTIONS[:16])
    assert found["prepare"]["bytes"] == 5 * guessed
    assert found["generate"]["bytes"] == STATES * guessed
    bases = {name: row["basis"] for name, row in found.items() if row["runs"]}
    assert bases == {
        "prepare": "unknown", "generate": "rough", "vocab": "unknown", "train": "rough", "validate": "unknown",
        "evaluate": "unknown", "report": "unknown",
    }  # fmt: skip
    assert all((row["seconds"] is None) == (row["basis"] == "unknown") for row in found.values())
    once = found["train"]["seconds"]
    place.ask(train={"epochs": 6})
    assert rows()["train"]["seconds"] == pytest.approx(3 * once)
    place.ask(train={"epochs": 6, "max_steps": 1})
    assert rows()["train"]["seconds"] == pytest.approx(once * 128 / (2 * guessed))


def test_answers_that_are_not_written_and_data_of_the_hub_are_not_guessed(place: Place, rows: Rows) -> None:
    changes: tuple[dict[str, Any], ...] = ({"regenerate": {}}, {"top": {"sources": ["org/data"]}})
    for one in changes:
        place.ask(**one)
        found = rows()
        assert {found[name]["bytes"] for name in ("prepare", "generate", "train")} == {None}
        assert {row["basis"] for row in found.values()} == {"unknown"}


def test_what_was_measured_here_tells_the_time(finished: Place, rows: Rows) -> None:
    seconds = finished.stages["train"]["seconds"]
    assert finished.stages["train"]["tokens"] == 2 * finished.stages["generate"]["tokens"]
    finished.ask(train={"epochs": 6})
    found = rows()
    assert (found["train"]["seconds"], found["train"]["basis"]) == (pytest.approx(3 * seconds), "measured")
    assert found["validate"]["basis"] == "unknown", "of another draft"
    states = sum(file.stat().st_size for file in (finished.folder / "states").iterdir())
    assert (found["generate"]["bytes"], found["generate"]["seconds"]) == (states, None), "it is there"
    assert states == pytest.approx(STATES * finished.stages["generate"]["tokens"], rel=0.1)


def test_what_runs_again_as_it_was_takes_as_long(finished: Place, rows: Rows) -> None:
    (finished.folder / "validation.json").unlink()
    assert (rows()["validate"]["seconds"], rows()["validate"]["basis"]) == (2.0, "measured")


@pytest.mark.parametrize(
    ("tables", "stage", "basis"),
    [
        ({"prepare": {"max_samples": 8}}, "generate", "measured"),
        ({"generate": {"max_samples": 8}}, "train", "measured"),
        ({"train": {"max_steps": 1}}, "train", "measured"),
        ({"train": {"ttt_steps": 3}}, "train", "rough"),
        ({"train": {"device": ..., "epochs": 3}}, "train", "rough"),
        ({"vocab": {"draft_vocab_size": 90}}, "train", "rough"),
        ({"vocab": {"draft_vocab_size": 90}}, "vocab", "unknown"),
        ({"prepare": {"seq_length": 100}}, "prepare", "unknown"),
        ({"prepare": {"seq_length": 100}}, "train", "rough"),
        ({"generate": {"batch_tokens": 100, "max_samples": 8}}, "generate", "rough"),
        ({"evaluate": {"limit": 3}}, "evaluate", "unknown"),
    ],
    ids=str,
)
def test_only_the_same_work_is_measured(
    tables: dict[str, Any], stage: str, basis: str, finished: Place, rows: Rows
) -> None:
    finished.ask(**tables)
    assert rows()[stage]["basis"] == basis


def test_another_way_since_then_is_not_measured(finished: Place, rows: Rows) -> None:
    record = finished.folder / "run.json"
    said = json.loads(record.read_text())
    said["stages"]["vocab"]["started"] = "9999-01-01T00:00:00+00:00"
    record.write_text(json.dumps(said))
    finished.ask(train={"epochs": 3})
    assert rows()["train"]["basis"] == "rough"


def test_what_runs_in_another_environment_is_not_guessed_from_this_one(place: Place, rows: Rows) -> None:
    other = place.path / "python"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    place.ask(generate={"python": "python"})
    assert (rows()["generate"]["basis"], rows()["train"]["basis"]) == ("unknown", "rough")


def test_a_draft_is_saved_in_the_type_of_its_verifier(place: Place, rows: Rows) -> None:
    config = place.path / "verifier" / "config.json"

    def bytes_of(said: str | None, **train: Any) -> int | None:
        facts = {key: value for key, value in json.loads(config.read_text()).items() if key not in ("dtype", TORCH)}
        config.write_text(json.dumps(facts | ({TORCH: said} if said else {})))
        place.ask(train=train)
        size: int | None = rows()["train"]["bytes"]
        return size

    assert bytes_of("float32") == bytes_of("bfloat16", dtype="float32") != bytes_of("bfloat16")
    assert bytes_of(None) is None


def test_the_table_tells_them_apart(finished: Place, cli: Any) -> None:
    finished.ask(train={"epochs": 3})
    lines = {line.split()[0]: line for line in cli(*DRY[:-1]).out.partition("\n\n")[0].splitlines()}
    assert " 3 s " in lines["train"]
    assert "~" not in lines["train"]
    (finished.folder / "run.json").unlink()
    assert "~1 s" in cli(*DRY[:-1]).out
    assert "~ is rough" in cli(*DRY[:-1]).out


def test_the_speed_of_this_machine_is_a_number_of_its_kind() -> None:
    assert 1e8 < flops() < 1e16
