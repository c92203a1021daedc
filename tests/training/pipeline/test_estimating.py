"""What a dry run says of sizes and times: what was measured, what is rough, and what nobody knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from spec_convert.training.pipeline.machine import flops

from .conftest import QUESTIONS, Place
from .test_plan import DRY

Rows = Callable[[], dict[str, dict[str, Any]]]
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
        "evaluate": "unknown",
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
    finished.ask(train={"epochs": 6}, vocab={"draft_vocab_size": 90})
    found = rows()
    assert (found["train"]["seconds"], found["train"]["basis"]) == (pytest.approx(3 * seconds), "measured")
    assert (found["vocab"]["seconds"], found["vocab"]["basis"]) == (finished.stages["vocab"]["seconds"], "measured")
    states = sum(file.stat().st_size for file in (finished.folder / "states").iterdir())
    assert (found["generate"]["bytes"], found["generate"]["seconds"]) == (states, None), "it is there"
    assert states == pytest.approx(STATES * finished.stages["generate"]["tokens"], rel=0.1)


def test_the_table_tells_them_apart(finished: Place, cli: Any) -> None:
    finished.ask(train={"epochs": 3}, prepare={"seq_length": 100})
    lines = {line.split()[0]: line for line in cli(*DRY[:-1]).out.partition("\n\n")[0].splitlines()}
    assert lines["train"].split()[-2:] == ["generate", "runs"]
    assert "~" not in lines["train"]
    (finished.folder / "run.json").unlink()
    assert "~1 s" in cli(*DRY[:-1]).out
    assert "~ is rough" in cli(*DRY[:-1]).out


def test_the_speed_of_this_machine_is_a_number_of_its_kind() -> None:
    assert 1e8 < flops() < 1e16
