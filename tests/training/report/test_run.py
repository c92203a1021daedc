"""What lies in the folder of a run is read whole, in parts, and while it is written; what is damaged is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from spec_convert.errors import UsageError
from spec_convert.evaluation.measured import Measured
from spec_convert.training.report.absent import absent
from spec_convert.training.report.run import read_run

from .sample import GREEDY, REQUEST, SHA, VALIDATION, VOCABULARY, log, record, trained, write, write_run, write_training


def training(folder: Path) -> Any:
    """That of the run, which must have one."""
    found = read_run(folder).training
    assert found is not None
    return found


def test_all_of_a_run_is_read(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert run.record is not None
    assert run.record.stages["evaluate"].state == "failed"
    assert run.training is not None
    assert run.training.over
    assert run.training.request == REQUEST
    assert [draft.name for draft in run.training.drafts if draft.best] == ["epoch_0002"]
    assert isinstance(run.evaluation, Measured)
    assert run.evaluation == GREEDY
    assert run.validation is not None
    assert run.validation.model_dump() == VALIDATION
    assert run.vocabulary is not None
    assert run.vocabulary.draft_vocab_size == 64
    assert list(run.data) == ["prepared", "states", "held-out/states"]
    assert list(absent(run)) == []


def test_every_file_of_a_draft_has_its_checksum(tmp_path: Path) -> None:
    (draft, _) = training(write_run(tmp_path / "run")).drafts
    sums = {file.name: (file.bytes, file.sha256) for file in draft.files}
    assert sums.keys() == {"config.json", "conversion.json", "model.safetensors"}
    assert sums["model.safetensors"] == (7, hashlib.sha256(b"weights").hexdigest())
    assert "tensors" not in draft.conversion


def test_the_folder_of_a_training_is_a_run_of_its_own(tmp_path: Path) -> None:
    run = read_run(write_training(tmp_path / "run", list(log())))
    assert (run.record, run.vocabulary, run.data) == (None, None, {})
    assert run.training is not None
    assert run.training.step == 540
    missing = {one.what: one.command for one in absent(run)}
    draft = tmp_path / "run" / "epoch_0002"
    assert list(missing.values()) == [
        f"spec-convert validate {draft} --output json={tmp_path / 'run' / 'validation.json'}",
        f"spec-convert evaluate {draft} --prompts questions.jsonl --output {tmp_path / 'run' / 'evaluation.json'}",
    ]


@pytest.mark.parametrize(
    ("part", "what", "command"),
    [
        ("training", "A training", "spec-convert train"),
        ("training/metrics.jsonl", "What was logged: metrics.jsonl", "spec-convert train"),
        ("prepared", "Prepared conversations", "spec-convert prepare"),
        ("states", "The verifier's hidden states", "spec-convert generate"),
        ("vocabulary", "A vocabulary of the draft", "spec-convert vocab"),
        ("validation.json", "A validation of the draft", "spec-convert validate"),
        ("evaluation.json", "An evaluation of the draft at work", "spec-convert evaluate"),
    ],
)
def test_any_part_may_be_missing_and_what_makes_it_is_named(part: str, what: str, command: str, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / part).rename(tmp_path / "away")
    (found,) = absent(read_run(folder))
    assert found.what.startswith(what)
    assert found.command.startswith(command)


def test_each_part_is_enough(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "whole")
    for part in ("training", "vocabulary", "states", "validation.json", "evaluation.json", "run.json"):
        alone = tmp_path / f"only-{part}"
        alone.mkdir()
        (whole / part).rename(alone / part)
        assert len(list(absent(read_run(alone)))) >= 1
        (alone / part).rename(whole / part)


def test_a_verifiers_whole_vocabulary_is_not_missing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "vocabulary").rename(tmp_path / "away")
    write(folder / "training" / "run.json", REQUEST | {"vocabulary": None})
    assert list(absent(read_run(folder))) == []


def test_a_folder_of_anything_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match="holds nothing of a run") as problem:
        read_run(tmp_path)
    assert problem.value.hint.startswith("give the folder of `spec-convert pipeline` or `demo`")
    with pytest.raises(UsageError, match="is no folder"):
        read_run(tmp_path / "none")


def test_a_running_training_is_read_up_to_its_last_whole_line(tmp_path: Path) -> None:
    folder = write_training(tmp_path / "run", list(log())[:20])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 999, "kin')
    going = training(folder)
    assert (going.step, going.log.torn, going.over) == (180, True, False)
    assert not training(write_training(tmp_path / "whole", list(log())[:20])).log.torn


def test_a_training_that_has_just_begun_has_no_line(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "run.json", REQUEST)
    begun = training(tmp_path / "run")
    assert (begun.step, begun.log, begun.progress, begun.drafts, begun.over) == (0, None, None, (), False)
    (tmp_path / "run" / "metrics.jsonl").touch()
    assert (training(tmp_path / "run").step, training(tmp_path / "run").log.lines) == (0, ())


@pytest.mark.parametrize(("steps", "over"), [(540, True), (600, False)])
def test_a_training_is_over_after_as_many_steps_as_it_was_given(steps: int, over: bool, tmp_path: Path) -> None:
    folder = write_training(tmp_path / "run", list(log()), epochs=9, max_steps=steps)
    assert training(folder).over is over


def test_the_time_of_logged_steps_is_what_their_tokens_took(tmp_path: Path) -> None:
    lines = [trained(10, tokens=500, tokens_per_second=100.0), trained(20, tokens=1500, tokens_per_second=500.0)]
    assert training(write_training(tmp_path / "run", lines)).log.seconds == pytest.approx(5 + 2)


@pytest.mark.parametrize("part", ["run.json", "training/run.json", "validation.json", "evaluation.json"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("[1]", "holds a JSON list where an object belongs"),
        ("[" * 100_000, "is nested more than 64 deep"),
        ('{"a":' * 900 + "1" + "}" * 900, "is nested more than 64 deep"),
        ('{"a": 1, "a": 2}', "has the key 'a' twice"),
        ('{"a": \ud800', "is not UTF-8 text"),
    ],
)
def test_a_damaged_document_is_refused_with_what_writes_it_anew(
    part: str, text: str, said: str, tmp_path: Path
) -> None:
    folder = write_run(tmp_path / "run")
    (folder / part).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError) as problem:
        read_run(folder)
    assert problem.value.message.startswith(f"{folder / part} {said}")
    assert problem.value.hint.startswith("write it anew: ")
    assert part not in ("validation.json", "evaluation.json") or f"RUN/{part}" in problem.value.hint


@pytest.mark.parametrize(
    ("part", "document", "said"),
    [
        ("run.json", record(schema_version=2), "has the schema_version 2; this spec-convert reads 1"),
        ("run.json", record(stages={"a": {"state": "asleep"}}), "is not as it was written: stages.a.state"),
        ("run.json", record(stages={"a": {"state": "done", "seconds": -1.0}}), "stages.a.seconds"),
        ("run.json", record(stages={"a": {"state": "done", "more": 1}}), "stages.a.more"),
        ("run.json", record(settings=3), "settings"),
        ("run.json", REQUEST, "has the schema_version None"),
        ("validation.json", VALIDATION | {"schema_version": 2}, "has the schema_version 2"),
        ("validation.json", VALIDATION | {"findings": "none"}, "findings"),
        ("evaluation.json", GREEDY.to_json() | {"schema_version": 2}, "schema_version is 2; this spec-convert reads 1"),
        ("evaluation.json", GREEDY.to_json() | {"drafts": 3}, "accepted further than less far"),
        ("states/manifest.json", {"schema_version": 2}, "is no manifest of a store"),
        ("vocabulary/vocab.json", VOCABULARY | {"coverage": 1}, "is not what `vocab` writes"),
        ("training/states/step_000540/state.json", {"contract": {}}, "is not as it was written: progress"),
    ],
)
def test_a_document_of_another_version_is_refused_with_the_reason(
    part: str, document: Any, said: str, tmp_path: Path
) -> None:
    folder = write_run(tmp_path / "run")
    write(folder / part, document)
    with pytest.raises(UsageError) as problem:
        read_run(folder)
    assert str(folder / part) in problem.value.message
    assert said in problem.value.message
    assert problem.value.hint


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nonsense", "Invalid JSON"),
        ("[]", "line 3: the whole"),
        (json.dumps({"step": 10, "kind": "dream"}), "line 3: kind"),
        (json.dumps({"step": -1, "kind": "train"}), "line 3: step"),
        (json.dumps({"step": 10, "kind": "train", "joint": [0.5, "x"]}), "line 3: joint.1"),
        (json.dumps({"step": 10, "kind": "train", "loss": True}), "line 3: loss"),
    ],
)
def test_a_line_that_no_training_writes_is_refused(line: str, said: str, tmp_path: Path) -> None:
    folder = write_training(tmp_path / "run", list(log())[:2])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(f"{line}\n{json.dumps(trained(30))}\n")
    with pytest.raises(UsageError) as problem:
        read_run(folder)
    assert said in problem.value.message


def test_a_training_that_was_stopped_is_as_far_as_its_state(tmp_path: Path) -> None:
    folder = write_training(tmp_path / "run", [trained(10), trained(20)])
    (folder / "metrics.jsonl").write_text(json.dumps(trained(10)) + "\n")
    assert training(folder).step == 20


def test_folders_that_are_no_states_are_none(tmp_path: Path) -> None:
    folder = write_training(tmp_path / "run", list(log()))
    (folder / "states" / "step_9x").mkdir()
    (folder / "epoch_1x").mkdir()
    assert training(folder).progress.step == 540


def test_a_state_that_goes_away_meanwhile_is_none(tmp_path: Path) -> None:
    folder = write_training(tmp_path / "run", list(log()))
    (folder / "states" / "step_000540" / "state.json").unlink()
    assert training(folder).progress is None


def test_the_document_is_the_same_whoever_reads_it(tmp_path: Path) -> None:
    once, again = (read_run(folder).to_json() for folder in [write_run(tmp_path / "run")] * 2)
    once["read"] = again["read"]
    assert once == again
    assert once["schema_version"] == 1
    assert once["training"]["log"]["lines"] == list(log())
    assert once["evaluation"] == GREEDY.to_json()
    assert once["data"]["states"]["shards"][0]["sha256"] == SHA
