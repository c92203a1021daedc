"""The file of a run and its flags: what they mean, and what is refused before anything runs."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from spec_convert.training.cli.pipeline import pipeline
from spec_convert.training.pipeline.options import command_of, options_of
from spec_convert.training.pipeline.settings import read_request
from spec_convert.training.pipeline.stages import NAMES, STAGES, TABLES

from ...test_architecture import HEAVY, loaded_after
from .conftest import Place

DRY = ("pipeline", "run.toml", "--dry-run", "--json")


@pytest.mark.parametrize(
    ("tables", "said", "hint"),
    [
        ({"trian": {}}, "run.toml: there is no key `trian`", "did you mean `train`?"),
        ({"evaluate": {"max_token": 3}}, "[evaluate]: there is no key `max_token`", "did you mean `max_tokens`?"),
        ({"evaluate": {"max-tokens": 3}}, "[evaluate]: there is no key `max-tokens`", "did you mean `max_tokens`?"),
        ({"evaluate": {"limit": 0}}, "[evaluate]: Invalid value for '--limit': 0 is not in the range", "--help"),
        ({"evaluate": {"prompts": "none.jsonl"}}, "none.jsonl is no file here and no dataset id", "give a file"),
        ({"evaluate": {"compare": 1}}, "[evaluate]: `compare` is 1", "true or false"),
        ({"evaluate": {"draft": "x"}}, "[evaluate]: there is no key `draft`", "keys are the options"),
        ({"evaluate": {"verifier": "x"}}, "[evaluate]: `verifier` is decided by the pipeline", "it is {verifier}"),
        ({"evaluate": {"report": "x.html"}}, "[evaluate]: `report` is not said here: the last stage", "leave it out"),
        ({"evaluate": {"output": "x.json"}}, "[evaluate]: `output` is decided by the pipeline", "it is {evaluation}"),
        ({"validate": {"level": "acceptance"}}, "[validate]: level acceptance needs --prompts FILE and", "answered"),
        ({"validate": {"limit": 3}}, "[validate]: --limit: level tensors measures no acceptance", "level acceptance"),
        (
            {"validate": {"level": "acceptance", "prompts": "asked.jsonl", "min_acceptance_length": 1}},
            "[validate]: a mean acceptance length of 1 asks for nothing", "more than 1",
        ),
        ({"evaluate": {"json": True}}, "[evaluate]: `json` is not said here", "leave it out"),
        ({"train": {"data_path": "x"}}, "[train]: `data_path` is decided by the pipeline", "it is {states}"),
        ({"train": {"verifier": "x"}}, "[train]: `verifier` is decided by the pipeline", "it is {verifier}"),
        ({"train": {"val_data_path": "x"}}, "`val_data_path` is not said here: [held_out] makes it", "leave it out"),
        ({"train": {"resume_from_checkpoint": False}}, "is not said here: --from train begins anew", "leave it out"),
        ({"train": {"epochs": True}}, "[train]: Invalid value for '--epochs'", "spec-convert train --help"),
        ({"train": {"epochs": 0}}, "[train]: --epochs: 0 should be greater than or equal to 1", ""),
        ({"train": {"draft": "eagle2"}}, "[train]: Invalid value for '--draft'", "train --help"),
        ({"train": {"draft": "eagle"}}, "[vocab] means nothing here: eagle has the verifier's whole", "leave [vocab]"),
        ({"train": {"draft_config": "x.toml"}}, "[train]: there is no draft config x.toml", "give a file"),
        ({"train": {"processes": 0}}, "processes is 0", "1 or more"),
        ({"prepare": {"processes": 2}}, "[prepare]: there is no key `processes`", "keys are"),
        ({"prepare": {"python": "none"}}, "none does not run: No such file", "bin/python"),
        ({"held_out": {}}, "[held_out] has no sources", 'sources = ["FILE"]'),
        ({"held_out": {"sources": "none.jsonl"}}, "none.jsonl is no file here", "give a file"),
        ({"held_out": {"sources": "learned.jsonl"}}, "learned.jsonl is learned from and held out", "other"),
        ({"held_out": {"sources": "asked.jsonl", "seq_length": 3}}, "[held_out]: there is no key `seq_length`", ""),
        ({"regenerate": {"temperature": -1}}, "[regenerate]: Invalid value for '--temperature'", "regenerate --help"),
        ({"generate": {"llm_arg": ["x"]}}, "[generate]: Invalid value for '--llm-arg'", "generate --help"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_in_any_table_is_found_before_anything_runs(
    tables: dict[str, Any], said: str, hint: str, place: Place, cli: Any
) -> None:
    place.ask(**tables)
    ran = cli("pipeline", "run.toml")
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert hint in ran.err.partition("hint: ")[2]
    assert not place.folder.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("verifier = 'v'\nsources = ['a']", "--folder is not given"),
        ("folder = 'f'\nsources = ['a']", "--verifier is not given"),
        ("folder = 'f'\nverifier = 'v'", "--source is not given"),
        ("folder = 3", "folder is 3"),
        ("sources = 3", "sources is 3"),
        ("sources = [3]", "sources is 3"),
        ("train = 3", "`train` is 3"),
        ("train.python = 3", "[train]: python is 3"),
        ("= 3", "is not TOML"),
    ],
)
def test_a_file_that_is_none_is_refused(text: str, said: str, place: Place, cli: Any) -> None:
    (place.path / "run.toml").write_text(text)
    ran = cli("pipeline", "run.toml")
    assert ran.code == 2
    assert said in ran.err


def test_a_file_that_is_not_there_and_a_stage_that_is_none_are_refused(place: Place, cli: Any) -> None:
    assert "none.toml cannot be read" in cli("pipeline", "none.toml").err
    for option in ("--from", "--to", "--only"):
        ran = cli("pipeline", "run.toml", option, "trian")
        assert "there is no stage `trian`" in ran.err
        assert "did you mean `train`?" in ran.err


def test_paths_are_seen_from_the_file_and_those_of_flags_from_here(place: Place, monkeypatch: Any) -> None:
    (place.path / "elsewhere").mkdir()
    monkeypatch.chdir(place.path / "elsewhere")
    place.ask(top={"python": "env/bin/python"}, train={"log_dir": "logs", "from_pretrained": "org/draft"})
    said = read_request(Path("../run.toml"), {"sources": ["../others.jsonl", "org/data"]}).said
    assert (said["folder"], said["verifier"]) == (str(place.path / "run"), str(place.path / "verifier"))
    assert said["sources"] == [str(place.path / "others.jsonl"), "org/data"]
    assert said["python"] == str(place.path / "env" / "bin" / "python")
    assert (said["train"]["log_dir"], said["train"]["from_pretrained"]) == (str(place.path / "logs"), "org/draft")
    assert said["evaluate"]["prompts"] == str(place.path / "asked.jsonl")


FLAGS = (
    "--folder", "run", "--verifier", "verifier", "--source", "learned.jsonl", "--held-out", "others.jsonl",
    "--max-samples", "3", "--draft-vocab-size", "64", "--epochs", "2", "--prompts", "asked.jsonl", "--regenerate",
)  # fmt: skip


def test_flags_are_a_file_that_can_be_printed(place: Place, cli: Any) -> None:
    dumped = cli("pipeline", *FLAGS, "--dump-config")
    assert (dumped.code, dumped.err) == (0, "")
    said = tomllib.loads(dumped.out)
    assert said == {
        "folder": str(place.path / "run"), "verifier": str(place.path / "verifier"),
        "sources": [str(place.path / "learned.jsonl")], "held_out": {"sources": [str(place.path / "others.jsonl")]},
        "regenerate": {}, "max_samples": 3, "vocab": {"draft_vocab_size": 64},
        "train": {"draft": "eagle3", "epochs": 2}, "evaluate": {"prompts": str(place.path / "asked.jsonl")},
    }  # fmt: skip
    (place.path / "elsewhere").mkdir()
    (place.path / "elsewhere" / "dumped.toml").write_text(dumped.out)
    assert cli("pipeline", "elsewhere/dumped.toml", "--dump-config").out == dumped.out
    assert not place.folder.exists()


def test_flags_win_over_the_file(place: Place) -> None:
    said = read_request(Path("run.toml"), {"train": {"epochs": 7}, "folder": "other"}).said
    assert (said["train"]["epochs"], said["train"]["draft"]) == (7, "eagle3")
    assert said["folder"] == str(place.path / "other")


def test_options_become_those_of_the_verb(place: Place, cli: Any) -> None:
    place.ask(
        generate={"llm_arg": {"max_model_len": 64, "quantization": "fp8"}, "engine": "transformers"},
        train={"learn_prompts": True, "amp": False, "logger": ["tensorboard"]},
    )
    ran = cli(*DRY)
    assert ran.code == 0, ran.err
    commands = {row["stage"]: row["command"] for row in ran.json["stages"]}
    assert " --llm-arg max_model_len=64 --llm-arg 'quantization=\"fp8\"'" in shlex.join(commands["generate"])
    assert {"--learn-prompts", "--no-amp"} < set(commands["train"])
    assert commands["train"][commands["train"].index("--logger") + 1] == "tensorboard"
    assert "processes" not in shlex.join(commands["train"])


def test_what_is_held_out_is_prepared_like_the_rest_and_counted_by_itself(place: Place, cli: Any) -> None:
    place.ask(top={"max_samples": 10}, held_out={"sources": "others.jsonl", "max_samples": 2}, regenerate={})
    commands = {row["stage"]: row["command"] for row in cli(*DRY).json["stages"]}
    ours, theirs = commands["prepare"], commands["prepare-held-out"]
    assert theirs[3:6] == [
        "prepare",
        str(place.folder / "held-out/answered.jsonl"),
        str(place.folder / "held-out/prepared"),
    ]
    assert [line[line.index("--max-samples") + 1] for line in (ours, theirs)] == ["10", "2"]
    assert [line[line.index("--seq-length") + 1] for line in (ours, theirs)] == ["128", "128"]
    asked = commands["regenerate"]
    assert asked[asked.index("--max-samples") + 1] == "10"
    assert commands["regenerate-held-out"][4] == str(place.path / "others.jsonl")
    assert "--max-samples" not in commands["generate-held-out"]
    train = commands["train"]
    assert train[train.index("--val-data-path") + 1] == str(place.folder / "held-out/states")


def test_every_stage_names_options_that_its_verb_has() -> None:
    for stage in STAGES:
        known = options_of(command_of(stage.verb))
        assert set(stage.refused) <= {*known, "resume_from_checkpoint", "format"}, stage.name
        assert {*stage.harmless, *stage.files, *stage.usual} <= set(known), stage.name


def test_a_table_is_that_of_a_verb_and_the_help_names_them_all() -> None:
    assert {stage.verb for stage in STAGES} == set(TABLES)
    text = pipeline.help or ""
    assert all(f"[{table}]" in text for table in TABLES)
    assert len(set(NAMES)) == len(NAMES)


def test_the_help_loads_no_heavy_library() -> None:
    code = "from spec_convert.cli import run; assert run(['pipeline', '--help']) == 0"
    assert loaded_after(code) & HEAVY == set()


def test_a_folder_that_holds_another_run_is_refused(place: Place, cli: Any) -> None:
    place.folder.mkdir()
    (place.folder / "run.json").write_text(json.dumps({"kind": "eagle3"}))
    ran = cli(*DRY)
    assert ran.code == 2
    assert "run.json is not that of a pipeline: it has no stages" in ran.err
    assert "hint: give a folder of its own with `--folder`" in ran.err
