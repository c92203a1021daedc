"""What is run again and what is not: a change of one stage concerns it and what depends on it, and nothing before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from .conftest import Place

CHANGED = "its options or what it reads have changed"
DRY = ("pipeline", "run.toml", "--dry-run", "--json")
Plan = Callable[..., dict[str, str]]


def test_a_run_that_is_done_has_nothing_left_to_do(finished: Place, plan: Plan) -> None:
    assert plan() == {}


@pytest.mark.parametrize(
    ("tables", "again"),
    [
        ({"prepare": {"num_proc": 2}}, []),
        ({"train": {"save_steps": 5}}, []),
        ({"generate": {"batch_tokens": 100}}, []),
        ({"evaluate": {"verbose": False}}, []),
        ({"prepare": {"seq_length": 64}}, ["prepare", "generate", "vocab", "train", "validate", "evaluate", "report"]),
        ({"generate": {"dtype": "bfloat16"}}, ["generate", "vocab", "train", "validate", "evaluate", "report"]),
        ({"vocab": {"draft_vocab_size": 90}}, ["vocab", "train", "validate", "evaluate", "report"]),
        ({"train": {"lr": 0.01}}, ["train", "validate", "evaluate", "report"]),
        ({"train": {"processes": 2}}, ["train", "validate", "evaluate", "report"]),
        ({"vocab": None}, ["train", "validate", "evaluate", "report"]),
        ({"validate": {"level": "headers"}}, ["validate", "report"]),
        ({"evaluate": {"limit": 2}}, ["evaluate", "report"]),
        ({"validate": {"level": "headers"}, "evaluate": {"limit": 2}}, ["validate", "evaluate", "report"]),
    ],
    ids=str,
)
def test_a_changed_option_concerns_its_stage_and_what_depends_on_it(
    tables: dict[str, Any], again: list[str], finished: Place, plan: Plan
) -> None:
    finished.ask(**tables)
    assert list(plan()) == again


def test_what_is_read_counts_by_its_content(finished: Place, plan: Plan) -> None:
    (finished.path / "learned.jsonl").touch()
    shutil.move(finished.path / "asked.jsonl", finished.path / "renamed.jsonl")
    finished.ask(evaluate={"prompts": "renamed.jsonl"})
    assert plan() == {}
    with (finished.path / "renamed.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "Why?"}) + "\n")
    assert plan() == {"evaluate": CHANGED, "report": "evaluate runs"}
    with (finished.path / "learned.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "Why?", "response": "So"}) + "\n")
    assert plan()["prepare"] == CHANGED
    assert plan()["train"] == "generate runs"


@pytest.mark.parametrize(
    "file", ["spiece.model", "tekken.json", "qwen.tiktoken", "chat_template.jinja", "modeling_it.py"]
)
def test_a_tokenizer_of_any_name_is_a_part_of_the_verifier(file: str, finished: Place, plan: Plan) -> None:
    (finished.path / "verifier" / "README.md").write_text("It says nothing")
    (finished.path / "verifier" / "model.gguf").write_text("and neither does this")
    assert plan() == {}
    (finished.path / "verifier" / file).write_text("another")
    assert "prepare" in plan()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
def test_another_verifier_changes_everything(file: str, finished: Place, plan: Plan) -> None:
    path = finished.path / "verifier" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {"another": 1}))
    assert list(plan()) == ["prepare", "generate", "vocab", "train", "validate", "evaluate", "report"]


def test_a_run_may_be_moved(finished: Place, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = finished.path.rename(finished.path.with_name("moved"))
    monkeypatch.chdir(moved)
    assert plan() == {}


@pytest.mark.parametrize(
    ("lost", "why"),
    [
        ("run/evaluation.json", {"evaluate": "what it made is gone", "report": "evaluate runs"}),
        ("run/validation.json", {"validate": "what it made is gone", "report": "validate runs"}),
        (
            "run/training/epoch_0002",
            {
                "train": "what it made is gone",
                "validate": "train runs",
                "evaluate": "train runs",
                "report": "train runs",
            },
        ),
    ],
)
def test_what_is_gone_is_made_again(lost: str, why: dict[str, str], finished: Place, plan: Plan) -> None:
    path = finished.path / lost
    if path.is_dir():
        shutil.rmtree(path)
        shutil.rmtree(path.with_name("epoch_0001"))
    else:
        path.unlink()
    assert plan() == why


def test_what_was_changed_is_made_again(finished: Place, plan: Plan) -> None:
    draft = finished.folder / "training" / "epoch_0002" / "config.json"
    draft.write_text(draft.read_text() + " ")
    (shard,) = (finished.folder / "states").glob("*.safetensors")
    with shard.open("ab") as file:
        file.write(b"more")
    assert plan()["generate"] == "what it made was changed"
    assert "prepare" not in plan()
    assert plan("--from", "train")["train"] == "asked for"


@pytest.mark.parametrize(
    ("args", "runs"),
    [
        (["--from", "train"], ["train", "validate", "evaluate", "report"]),
        (["--from", "evaluate"], ["evaluate", "report"]),
        (["--only", "validate"], ["validate"]),
    ],
)
def test_stages_are_run_again_when_asked(args: list[str], runs: list[str], finished: Place, plan: Plan) -> None:
    assert list(plan(*args)) == runs


def test_a_report_is_of_what_there_is(finished: Place, plan: Plan) -> None:
    (finished.folder / "evaluation.json").unlink()
    assert plan("--only", "report") == {"report": "asked for"}


def test_stages_that_nobody_asks_for_are_told(finished: Place, cli: Any) -> None:
    finished.ask(vocab=None, evaluate=None)
    rows = {row["stage"]: row for row in cli(*DRY).json["stages"]}
    assert list(rows)[:2] == ["regenerate", "prepare"]
    assert rows["vocab"]["why"] == "nobody asks for it: there is no [vocab]"
    assert rows["prepare-held-out"]["why"] == "nobody asks for it: there is no [held_out]"
    assert (rows["evaluate"]["runs"], rows["evaluate"]["command"]) == (False, [])


def test_a_stage_whose_input_is_not_there_is_refused(place: Place, cli: Any) -> None:
    ran = cli("pipeline", "run.toml", "--only", "train", "--dry-run")
    assert ran.code == 2
    assert "the stage train reads" in ran.err
    assert "hint: begin with --from prepare" in ran.err, "its states were made of something, which is not there either"
    assert not place.folder.exists()


def test_the_first_stage_whose_output_is_lost_is_the_one_to_begin_with(finished: Place, cli: Any) -> None:
    shutil.rmtree(finished.folder / "states")
    assert "hint: begin with --from generate" in cli("pipeline", "run.toml", "--from", "train", "--dry-run").err
    shutil.rmtree(finished.folder / "training")
    assert "hint: begin with --from generate" in cli("pipeline", "run.toml", "--only", "validate", "--dry-run").err


@pytest.mark.parametrize(
    ("args", "said", "hint"),
    [
        (("--from", "report", "--to", "prepare"), "prepare comes before report", "the order is regenerate, prepare"),
        (("--only", "train", "--to", "prepare"), "--only is for one stage alone", "leave it out"),
        (("--only", "train", "--from", "train"), "--only is for one stage alone", "leave it out"),
        (("--only", "regenerate"), "regenerate: nobody asks for it: there is no [regenerate]", "add [regenerate]"),
        (
            ("--from", "prepare-held-out", "--to", "generate-held-out"),
            "prepare-held-out: nobody asks for it: there is no [held_out]",
            "add [held_out]",
        ),
    ],
)
def test_a_choice_of_no_stage_is_refused(args: tuple[str, ...], said: str, hint: str, place: Place, cli: Any) -> None:
    for more in ((), ("--dry-run",)):
        ran = cli("pipeline", "run.toml", *args, *more)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
        assert hint in ran.err.partition("hint: ")[2]
    assert not place.folder.exists()


def test_the_plan_is_a_table_with_what_is_read_and_written(finished: Place, cli: Any) -> None:
    finished.ask(train={"epochs": 4})
    out = cli(*DRY[:-1]).out
    table, _, below = out.partition("\n\n")
    assert [line.split()[0] for line in table.splitlines()[1:]] == [row["stage"] for row in cli(*DRY).json["stages"]]
    assert f"train: {finished.path}/verifier, states, vocabulary -> training\n" in below
    assert "-m spec_convert train --verifier-name-or-path" in below
    assert f"{finished.path}/run/training" in below


def test_a_draft_that_is_not_trained_yet_is_named_as_it_will_be(place: Place, cli: Any) -> None:
    assert f"validate {place.folder}/training/epoch_NNNN --verifier" in cli(*DRY[:-1]).out


def test_a_dry_run_writes_nothing(place: Place, cli: Any) -> None:
    before = sorted(place.path.rglob("*"))
    assert cli(*DRY).code == 0
    assert sorted(place.path.rglob("*")) == before


def test_the_states_of_a_draft_are_those_that_are_captured(place: Place, cli: Any) -> None:
    def captured(**train: Any) -> str:
        place.ask(train=train, vocab=None)
        command = next(row["command"] for row in cli(*DRY).json["stages"] if row["stage"] == "generate")
        return str(command[command.index("--layers") + 1])

    assert captured() == "1,3,5,6"
    assert captured(draft="eagle", target_layers=..., ttt_steps=...) == "6"
    (place.path / "draft.toml").write_text("target_layers = [0, 2]")
    assert captured(draft_config="draft.toml", target_layers=...) == "0,2,6"
    place.ask(train={"target_layers": ...})
    assert "has no layers 2, 3, 3, 6 in this order" in cli(*DRY).err, "the usual ones"
    place.ask(generate={"layers": [1, 5, 6]})
    ran = cli(*DRY)
    assert ran.code == 2
    assert "[generate]: `layers` leaves out 3, which the draft of [train] is trained on" in ran.err
