"""run.json of a pipeline or demo: what is written is read again, and what is not that is refused and left alone."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from spec_convert.errors import UsageError
from spec_convert.training.record import StageRecord, open_record

DONE = StageRecord(state="done", inputs="a", command=("b", "c"), started="d", seconds=1.0, outputs=("e",), tokens=3)


def written(path: Path, **changes: Any) -> dict[str, Any]:
    record = open_record(path, "pipeline", {"epochs": 3})
    record.stages["train"] = DONE
    record.write(path)
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(document))
    return dict(document)


def test_what_was_written_is_read_with_what_is_asked_for_now(tmp_path: Path) -> None:
    written(tmp_path / "run.json", spec_convert="0.0.1")
    record = open_record(tmp_path / "run.json", "pipeline", {"epochs": 4})
    assert record.stages == {"train": DONE}
    assert (record.settings, record.spec_convert) == ({"epochs": 4}, version("spec-convert"))


def test_what_is_not_known_is_not_written(tmp_path: Path) -> None:
    record = open_record(tmp_path / "run.json", "demo", {})
    assert list(tmp_path.iterdir()) == []
    record.stages["train"] = StageRecord(state="running", started="now")
    record.of("report")
    record.write(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text()) == {
        "schema_version": 1, "kind": "demo", "spec_convert": version("spec-convert"), "settings": {},
        "stages": {"train": {"state": "running", "started": "now"}, "report": {"state": "waiting"}},
    }  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("", "is empty"),
        ("{", "is not JSON"),
        ({"schema_version": 2}, "has the schema_version 2"),
        ({"stages": {"train": {"state": "asleep"}}}, "is not as it was written: stages.train.state"),
        ({"stages": {"train": {"state": "done", "more": 1}}}, "is not as it was written: stages.train.more"),
    ],
)
def test_a_damaged_one_is_refused_and_left_alone(document: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    text = document if isinstance(document, str) else json.dumps(written(path) | document)
    path.write_text(text)
    with pytest.raises(UsageError) as problem:
        open_record(path, "pipeline", {})
    assert problem.value.message.startswith(f"{path} {said}")
    assert problem.value.hint == "give a folder of its own with `--folder`, or move that file away"
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("document", "said"),
    [({"kind": "eagle3"}, "is not that of a demo: it has no stages"), (None, "is that of a pipeline, not of a demo")],
)
def test_that_of_something_else_is_refused(document: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document or written(path)))
    with pytest.raises(UsageError) as problem:
        open_record(path, "demo", {})
    assert problem.value.message == f"{path} {said}"
    assert problem.value.hint == "give a folder of its own with `--folder`"


def test_where_it_cannot_be_written_is_said(tmp_path: Path) -> None:
    record = open_record(tmp_path / "none" / "run.json", "demo", {})
    with pytest.raises(UsageError, match=r"cannot write .*none/run\.json: No such file"):
        record.write(tmp_path / "none" / "run.json")
