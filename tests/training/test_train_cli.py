"""`train` as it is asked for: flags and file, what is refused before any weight is read, the help and the page."""

from __future__ import annotations

import re
import signal
import sys
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import click
import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from spec_convert.cli import cli as group
from spec_convert.errors import UsageError
from spec_convert.narration import say
from spec_convert.training.cli.train import KINDS, train
from spec_convert.training.drafts.reading import ready_configs
from spec_convert.training.losses.mix import LOSSES
from spec_convert.training.preflight import require_runnable
from spec_convert.training.recipes import Kind
from spec_convert.training.settings import OF_KINDS, PATHS, SOURCES, AbsolutePath, Logger, Source, TrainSettings, option
from spec_convert.training.settings_file import as_toml, read_settings
from spec_convert.training.store.manifest import read_manifest
from spec_convert.training.trainer.metrics import Metrics
from spec_convert.training.trainer.trained import Trained

from ..cli.conftest import _plain_environment, cli  # noqa: F401  as tests of the command line run them
from ..docs.pages import ROOT, Page
from ..test_architecture import HEAVY, loaded_after
from .report.sample import trained as trained_at
from .report.sample import write_training
from .small import random_samples, write_states

PAGE = Page(ROOT / "docs" / "training.md")
LEAST = {"verifier_name_or_path": "org/model", "data_path": "states", "save_path": "run", "draft": "eagle3"}
TRAINED = Trained(
    folder=Path("run"), steps=20, planned_steps=20, epochs=2, tokens=4000, seconds=2.5, skipped=0,
    metrics={"tau": 1.75, "joint": [0.5, 0.25]}, held_out=None, best_epoch=None, draft=Path("run/epoch_0002"),
    state=Path("run/states/step_000020"),
)  # fmt: skip
FLAGS = ["--verifier", "org/model", "--data-path", "states", "--save-path", "run"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands run: it holds `states`, a `run`, and vocabulary files as far as their names go."""
    write_states(tmp_path / "states", random_samples([3, 5]))
    write_training(tmp_path / "run", [trained_at(10)])
    for name in ("d2t.npy", "t2d.npy"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[TrainSettings]:
    """What the trainer is asked for, which itself is not there."""
    seen: list[TrainSettings] = []
    module = ModuleType("spec_convert.training.training")
    module.train = lambda settings: seen.append(settings) or TRAINED  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def settings(**changes: Any) -> TrainSettings:
    return read_settings(None, LEAST | changes)


def parsed(*arguments: str) -> dict[str, Any]:
    """What click makes of the arguments, without those that are not settings."""
    context = train.make_context("train", list(arguments), parent=click.Context(group))
    return {name: value for name, value in context.params.items() if name in TrainSettings.model_fields}


# -- flags and settings


def test_every_setting_is_an_option_and_every_option_a_setting() -> None:
    options = {param.name for param in train.params} - {"file", "dump", "as_json", "help"}
    assert options == set(TrainSettings.model_fields)
    for name in TrainSettings.model_fields:
        assert option(name) in {spelt for param in train.params for spelt in param.opts}


def test_the_choices_of_the_options_are_those_of_the_settings() -> None:
    assert get_args(Kind) == KINDS
    assert set(OF_KINDS) <= set(TrainSettings.model_fields)
    for param in train.params:
        field = TrainSettings.model_fields.get(param.name or "")
        if field and isinstance(param.type, click.Choice):
            kinds = [field.annotation, *get_args(field.annotation)]
            assert any(get_args(kind) == tuple(param.type.choices) for kind in kinds), param.name


def test_all_paths_are_seen_from_the_file_that_names_them() -> None:
    hints = TrainSettings.__annotations__
    assert {name for name in hints if hints[name].startswith("AbsolutePath")} == set(PATHS)
    assert {name for name in hints if hints[name].startswith("Source")} == set(SOURCES)
    assert AbsolutePath
    assert Source


def test_flags_become_settings(folder: Path, cli: Any, asked: list[TrainSettings]) -> None:  # noqa: F811
    flags = ["--draft", "eagle3", "--d2t-path", "d2t.npy", "--t2d-path", "t2d.npy", "--target-layers", "0,3,5"]
    flags += ["--lr", "1e-3", "--epochs", "3", "--max-steps", "7", "--ttt-steps", "4", "--ttt-step-loss-decay", "0.5"]
    flags += ["--loss", "soft_ce=1,tv=0.1", "--optimizer", "muon", "--scheduler", "wsd", "--warmup-ratio", "0.1"]
    flags += ["--learn-prompts"]
    flags += ["--gradient-accumulation-steps", "2", "--no-resume-from-checkpoint", "--run-name", "first", "--no-amp"]
    ran = cli("train", *FLAGS, *flags)
    assert (ran.code, ran.err) == (0, "")
    assert "trained     tau 1.750, J 0.500 0.250\n" in ran.out
    assert "None" not in ran.out
    (made,) = asked
    assert made == TrainSettings(
        verifier_name_or_path="org/model", data_path=folder / "states", save_path=folder / "run", draft="eagle3",
        d2t_path=folder / "d2t.npy", t2d_path=folder / "t2d.npy", target_layers=(0, 3, 5), lr=1e-3, epochs=3,
        max_steps=7, ttt_steps=4, ttt_step_loss_decay=0.5, loss="soft_ce=1,tv=0.1", optimizer="muon", scheduler="wsd",
        warmup_ratio=0.1, learn_prompts=True, gradient_accumulation_steps=2,
        resume_from_checkpoint=False, run_name="first", amp=False,
    )  # fmt: skip


def test_what_is_left_out_is_as_the_settings_have_it(cli: Any, asked: list[TrainSettings]) -> None:  # noqa: F811
    assert cli("train", *FLAGS, "--draft", "hass").code == 0
    assert asked[0] == settings(draft="hass")
    assert asked[0].model_fields_set == {*LEAST, "draft"}


def test_defaults_that_the_help_tells_are_those_of_the_settings() -> None:
    for param in train.params:
        told = re.search(r"Default: ([\d.]+|adamw|cosine)\.$", getattr(param, "help", None) or "")
        if told:
            assert str(getattr(settings(), param.name or "")) == told[1], param.name


@pytest.mark.parametrize(
    "flags",
    [
        ["--logger", "wandb,tensorboard", "--logger", "trackio"],
        ["--logger", "wandb", "--logger", "tensorboard,trackio", "--logger", "wandb"],
        ["--logger", "wandb, tensorboard, trackio"],
    ],
)
def test_trackers_are_named_with_commas_or_one_by_one(flags: list[str]) -> None:
    named = settings(**{name: value for name, value in parsed(*flags).items() if value}).logger
    assert set(named) == set(get_args(Logger))
    assert len(named) == 3


def test_the_result_is_json_on_demand(cli: Any, asked: list[TrainSettings]) -> None:  # noqa: F811
    assert cli("train", *FLAGS, "--draft", "eagle", "--json").json == TRAINED.to_json() | {"report": "run/report.html"}


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ({"stopped_by": signal.SIGTERM}, 143, ""),
        ({"stopped_by": signal.SIGINT}, 130, ""),
        ({"problem": "the gradients of 10 steps in a row were not finite"}, 1, "error: the gradients of 10 steps"),
    ],
)
def test_how_it_ended_is_the_exit_code(  # noqa: PLR0917
    end: dict[str, Any], code: int, said: str, cli: Any, asked: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.setattr(sys.modules["spec_convert.training.training"], "train", lambda _: replace(TRAINED, **end))
    ran = cli("train", *FLAGS, "--draft", "eagle")
    assert ran.code == code
    assert ran.err.startswith(said)
    told = "none; spec-convert report run makes one" if "stopped_by" in end else "run/report.html"
    assert f"report      {told}\n" in ran.out


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_report_that_cannot_be_made_takes_nothing_from_the_training(
    flags: list[str], folder: Path, cli: Any, asked: list[TrainSettings]  # noqa: F811
) -> None:  # fmt: skip
    (folder / "run" / "metrics.jsonl").write_text("nonsense\n")
    ran = cli("train", *FLAGS, "--draft", "eagle", *flags)
    assert ran.code == 0
    assert ran.err.startswith("warning: no report: run/metrics.jsonl, line 1: ")
    assert ran.err.endswith("  hint: spec-convert report run\n")
    if flags:
        assert ran.json["report"] is None
    else:
        assert "tau 1.750" in ran.out


def test_a_bug_in_the_report_takes_nothing_from_the_training(
    cli: Any, asked: list[TrainSettings], monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.setattr("spec_convert.training.report.writing.write_report", lambda folder: 1 // 0)
    ran = cli("train", *FLAGS, "--draft", "eagle")
    assert (ran.code, "tau 1.750" in ran.out) == (0, True)
    assert ran.err.startswith("warning: no report: internal error: ZeroDivisionError")


# -- the file


def test_flags_win_over_the_file_and_paths_are_seen_from_it(
    folder: Path, cli: Any, asked: list[TrainSettings]  # noqa: F811
) -> None:  # fmt: skip
    (folder / "runs").mkdir()
    (folder / "runs" / "model").mkdir()
    (folder / "runs" / "run.toml").write_text(
        'verifier_name_or_path = "model"\ndata_path = "../states"\nsave_path = "out"\ndraft = "eagle"\nlr = 1\n'
        'from_pretrained = "org/draft"\nlogger = "tensorboard"\nepochs = 3\nval_data_path = "~/held"'
    )
    read = read_settings(Path("runs/run.toml"), {"epochs": 5, "save_path": "here", "lr": None})
    assert (read.data_path, read.save_path) == (folder / "states", folder / "here")
    assert (read.verifier_name_or_path, read.from_pretrained) == (str(folder / "runs" / "model"), "org/draft")
    assert (read.epochs, read.lr, read.logger) == (5, 1.0, ("tensorboard",))
    assert read.val_data_path == Path.home() / "held"
    (folder / "runs" / "run.toml").write_text('verifier_name_or_path = "./states"\nfrom_pretrained = "states"')
    read = read_settings(Path("runs/run.toml"), {"data_path": "d", "save_path": "s", "draft": "eagle"})
    assert read.verifier_name_or_path == str(folder / "runs" / "states"), "never a folder of that name elsewhere"
    (folder / "runs" / "run.toml").write_text(
        'verifier_name_or_path = "m"\ndata_path = "../states"\nsave_path = "out"\ndraft = "eagle"'
    )
    assert cli("train", "--config", "runs/run.toml", "--draft", "hass").code == 0
    assert (asked[0].draft, asked[0].save_path) == ("hass", folder / "runs" / "out")


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        ("learning_rate = 1", "run.toml: there is no key `learning_rate`", "keys are the options of train"),
        ("save-steps = 1", "run.toml: there is no key `save-steps`", "did you mean `save_steps`?"),
        ("verifier = 'x'", "run.toml: there is no key `verifier`", "did you mean `verifier_name_or_path`?"),
        ("[data]\npath = 1", "run.toml: there is no key `data`", "keys are the options of train"),
        ("epochs = 0", "run.toml: epochs: 0 should be greater than or equal to 1", "docs/training.md"),
        ("epochs = 1.5", "run.toml: epochs: 1.5 should be a valid integer", ""),
        ("epochs = true", "run.toml: epochs: true should be a valid integer", ""),
        ("lr = '1e-4'", "run.toml: lr: 1e-4 should be a valid number", ""),
        ("lr = inf", "run.toml: lr: Infinity should be a finite number", ""),
        ("draft = 'eagle2'", "run.toml: draft: eagle2 should be 'eagle3'", ""),
        ("data_path = 3", "run.toml: data_path: 3", ""),
        ("logger = ['wandbb']", "run.toml: logger: wandbb should be 'trackio', 'wandb' or 'tensorboard'", ""),
        ("logger = [3]", "run.toml: logger: 3 should be 'trackio'", ""),
        ("target_layers = [5, 2]", "target_layers: [5, 2] Boundary ids should be in ascending order", ""),
        ("target_layers = [2.5]", "target_layers: 2.5 should be a valid integer", ""),
        ("warmup_ratio = 1.5", "warmup_ratio: 1.5 should be less than or equal to 1", ""),
        ("= 3", "run.toml is not TOML", "--dump-config writes one"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(line: str, said: str, hint: str, folder: Path) -> None:
    least = "".join(f"{key} = {value!r}\n" for key, value in LEAST.items() if key not in line)
    (folder / "run.toml").write_text(least + line)
    with pytest.raises(UsageError) as problem:
        read_settings(Path("run.toml"), {})
    assert said in problem.value.message
    assert hint in problem.value.hint


def test_a_file_that_is_not_utf8_or_not_there_is_refused(folder: Path, cli: Any) -> None:  # noqa: F811
    Path("run.toml").write_bytes(b"draft = '\xff'")
    assert "is not TOML" in cli("train", "--config", "run.toml").err
    assert cli("train", "--config", "none.toml").code == 2


TEXTS = st.text(min_size=1).filter(lambda text: not text.isspace() and "\0" not in text)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "total_seq_len": st.integers(1), "epochs": st.integers(1), "max_steps": st.integers(1),
    "lr": st.floats(0, exclude_min=True, allow_infinity=False), "warmup_ratio": st.floats(0, 1),
    "loss": st.sampled_from(["soft_ce", "smooth_l1=1.0,soft_ce=0.1"]), "run_name": TEXTS, "device": TEXTS,
    "from_pretrained": TEXTS, "verifier_name_or_path": TEXTS,
    "save_path": TEXTS.map(Path), "data_path": TEXTS.map(Path), "draft": st.sampled_from(KINDS),
    "seed": st.integers(0, 2**63 - 1), "amp": st.booleans(), "resume_from_checkpoint": st.booleans(),
    "logger": st.lists(st.sampled_from(get_args(Logger)), unique=True).map(tuple),
    "optimizer": st.sampled_from(["adamw", "muon"]), "parallel": st.sampled_from(["ddp", "fsdp"]),
}  # fmt: skip


@given(st.fixed_dictionaries({}, optional=VALUES))
@example({"data_path": Path("~nobody"), "from_pretrained": "~nobody"})
@example({"run_name": '\x7f " \\ \n \x00 é 😀'})
@hypothesis(max_examples=100, deadline=None)
def test_what_is_dumped_is_read_as_the_same(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    made = settings(**values)
    file = tmp_path_factory.mktemp("elsewhere") / "run.toml"
    file.write_text(as_toml(made), encoding="utf-8", newline="")
    assert read_settings(file, {}) == made


def test_the_dump_says_what_would_be_run_and_nothing_else_happens(
    folder: Path, cli: Any, asked: list[TrainSettings]  # noqa: F811
) -> None:  # fmt: skip
    ran = cli("train", *FLAGS, "--draft", "eagle3", "--target-layers", "0,3", "--ttt-steps", "2", "--dump-config")
    assert (ran.code, ran.err, asked) == (0, "", [])
    assert tomllib.loads(ran.out)["target_layers"] == [0, 3]
    assert "\nttt_steps = 2" in ran.out
    assert "# As the recipe of eagle3 has it:\n# lr = 0.0001\n" in ran.out
    assert "# ttt_steps" not in ran.out
    (folder / "run.toml").write_text(ran.out)
    assert cli("train", "--config", "run.toml", "--dump-config").out == ran.out


def test_the_dump_tells_the_phases_of_a_recipe() -> None:
    assert re.search(r'^# loss = ".*" until 80%, then ".*top_k=1.0"$', as_toml(settings(draft="hass")), re.MULTILINE)
    assert "ttt_steps" not in as_toml(settings(draft="eagle"))


# -- what is refused


@pytest.mark.parametrize(
    ("flags", "said", "hint"),
    [
        ([], "--draft is not given", "draft = …"),
        (["--draft", "eagle", "--ttt-steps", "3"], "eagle is trained one step at a time", "it is for eagle3, eagle3-s"),
        (["--draft", "eagle-mlp", "--ttt-step-loss-decay", "1"], "--ttt-step-loss-decay means nothing here", "leave"),
        (["--draft", "hass", "--target-layers", "0,1"], "hass is not fed several of the verifier's states", "leave"),
        (["--draft", "eagle3-shared-head", "--d2t-path", "d2t.npy", "--t2d-path", "t2d.npy"],
         "--d2t-path means nothing here: eagle3-shared-head has the verifier's whole vocabulary", "eagle3 and p-eagle"),
        (["--draft", "eagle3", "--with-head"], "--with-head means nothing here", "it is for eagle3-shared-head"),
        (["--draft", "eagle3", "--without-head"], "--with-head means nothing here", "it is for eagle3-shared-head"),
        (["--draft", "eagle3", "--d2t-path", "d2t.npy"], "--d2t-path is given without --t2d-path", "give both"),
        (["--draft", "eagle3", "--t2d-path", "d2t.npy"], "--t2d-path is given without --d2t-path", "give both"),
        (["--draft", "eagle3", "--layer-ids", "0,1"], "--layer-ids is given without --last-state", "give both"),
        (["--draft", "eagle3", "--d2t-path", "d2t.npy", "--t2d-path", "x"], "x is no file", "spec-convert vocab"),
        (["--draft", "eagle", "--from-pretrained", "d", "--num-layers", "2"], "--num-layers is for a new", "leave out"),
        (["--draft", "eagle", "--log-dir", "logs"], "--log-dir is where trackers write", "--logger tensorboard"),
        (["--draft", "eagle3", "--loss", "soft-ce"], "there is no loss `soft-ce`", "one of soft_ce, forward_kl"),
        (["--draft", "eagle3", "--loss", "smooth_l1"], "--loss smooth_l1 teaches nothing to the head of eagle3",
         "--loss smooth_l1,soft_ce=0.1"),
        (["--draft", "eagle3", "--loss", "tv=0"], "the loss `tv` has the weight 0", "above 0"),
        (["--draft", "eagle", "--lr", "0"], "--lr: 0.0 should be greater than 0", ""),
        (["--draft", "eagle", "--seed", "-1"], "--seed: -1 should be greater than or equal to 0", ""),
        (["--draft", "eagle", "--data-path", "none"], "none is no folder", "spec-convert generate"),
        (["--draft", "eagle", "--data-path", "empty"], "empty has no manifest.json", "generate"),
        (["--draft", "eagle", "--val-data-path", "states"], "nothing is held out", "other conversations"),
        (["--draft", "eagle", "--save-path", "states/run"], "lies in --data-path", "of its own"),
        (["--draft", "eagle", "--save-path", "d2t.npy"], "d2t.npy is not a folder", ""),
        (["--draft", "eagle", "--data-format-version", "1"], "states holds a store", "leave it out"),
        (["--draft", "eagle", "--parallel", "ddp"], "is for several processes, and this is one", "torchrun"),
        (["--draft", "eagle", "--logger", "spacecraft"], "--logger: spacecraft should be 'trackio'", ""),
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused_before_the_trainer_is_asked(  # noqa: PLR0917
    flags: list[str], said: str, hint: str, folder: Path, cli: Any, asked: list[TrainSettings]  # noqa: F811
) -> None:  # fmt: skip
    (folder / "empty").mkdir()
    ran = cli("train", *FLAGS, *flags)
    assert (ran.code, ran.out, asked) == (2, "", [])
    assert ran.err.startswith("error: ")
    assert said in ran.err
    assert hint in ran.err.partition("hint: ")[2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_of_a_kind_is_taken_by_that_kind(kind: str) -> None:
    given: dict[str, Any] = {
        "ttt_steps": 2, "ttt_step_loss_decay": 0.5, "target_layers": (1,), "with_head": True,
        "d2t_path": "d", "t2d_path": "t",
    }  # fmt: skip
    assert given.keys() == OF_KINDS.keys()
    settings(draft=kind, **{name: value for name, value in given.items() if kind in OF_KINDS[name][0]})


def test_data_without_states_is_refused(folder: Path) -> None:
    manifest = read_manifest(folder / "states").model_copy(update={"kind": "prepared", "layers": None})
    (folder / "states" / "manifest.json").write_text(manifest.model_dump_json())
    with pytest.raises(UsageError, match="without the verifier's states") as problem:
        require_runnable(settings(), {})
    assert problem.value.hint == f"capture them: spec-convert generate {folder / 'states'} STATES"


@pytest.mark.parametrize("version", [0, 1])
def test_files_of_others_must_be_described_and_of_the_version_that_is_asked_for(folder: Path, version: int) -> None:
    of = {
        0: {"hidden_state": torch.zeros(2, 8), "target": torch.zeros(2, 4)},
        1: {"hidden_states": [torch.zeros(2, 4)]},
    }
    (folder / "pt").mkdir()
    torch.save({"input_ids": torch.zeros(2).long(), "loss_mask": torch.ones(2), **of[version]}, "pt/data_0.pt")
    with pytest.raises(UsageError, match="does not say which layers") as problem:
        require_runnable(settings(data_path="pt"), {})
    assert "--last-state before-norm" in problem.value.hint
    told = settings(data_path="pt", layer_ids=(2, 3, 6), last_state="after-norm", data_format_version=version)
    assert told.last == "after_norm"
    require_runnable(told, {})
    with pytest.raises(UsageError, match=f"holds data of version {version}, not {1 - version}"):
        require_runnable(told.model_copy(update={"data_format_version": 1 - version}), {})


def test_a_tracker_that_is_not_installed_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spec_convert.training.trainer.trackers.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="wandb is not installed"):
        require_runnable(settings(logger="wandb"), {})


# -- processes


def test_several_processes_need_a_way_to_share_the_work(folder: Path) -> None:
    several = {"WORLD_SIZE": "2"}
    with pytest.raises(UsageError, match="torchrun has started several processes"):
        require_runnable(settings(), several)
    require_runnable(settings(parallel="fsdp"), several)
    require_runnable(settings(), {"WORLD_SIZE": "1"})


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """This process is from then on one of two that torchrun has started."""

    def be(number: int) -> None:
        for name, value in (("RANK", number), ("LOCAL_RANK", number), ("WORLD_SIZE", 2)):
            monkeypatch.setenv(name, str(value))

    return be


def test_only_the_first_process_speaks(
    cli: Any, asked: list[TrainSettings], rank: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    def narrate(made: TrainSettings) -> Trained:
        asked.append(made)
        say("The first step")
        return TRAINED

    monkeypatch.setattr(sys.modules["spec_convert.training.training"], "train", narrate)
    flags = [*FLAGS, "--draft", "eagle", "--parallel", "ddp"]
    said = []
    for number in range(2):
        rank(number)
        done, dumped = cli("train", *flags), cli("train", *flags, "--dump-config")
        assert (done.code, dumped.code) == (0, 0)
        said.append([bool(text) for text in (done.out, done.err, dumped.out)])
    assert said == [[True] * 3, [False] * 3]
    assert len(asked) == 2, "every process trains"


def test_only_the_first_process_writes_the_report(
    folder: Path, cli: Any, asked: Any, rank: Any  # noqa: F811
) -> None:  # fmt: skip
    for number in (1, 0):
        rank(number)
        assert cli("train", *FLAGS, "--draft", "eagle", "--parallel", "ddp").code == 0
        assert (folder / "run" / "report.html").exists() is (number == 0)


def test_a_refusal_of_all_processes_is_said_by_the_first_of_the_machine(
    cli: Any, asked: Any, rank: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]  # noqa: F811
) -> None:  # fmt: skip
    def ended_by_torchrun(seconds: float) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(time, "sleep", ended_by_torchrun)
    rank(0)
    assert "nothing says how they share the work" in cli("train", *FLAGS, "--draft", "eagle").err
    rank(1)
    with pytest.raises(SystemExit):
        cli("train", *FLAGS, "--draft", "eagle")
    assert capfd.readouterr() == ("", "")


def test_a_process_that_is_refused_alone_says_so(
    cli: Any, asked: Any, rank: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    rank(1)
    ran = cli("train", *FLAGS, "--draft", "eagle", "--data-path", "none")
    assert (ran.code, waited) == (2, [10.0])
    assert "none is no folder" in ran.err


# -- the help and the page


def test_the_help_is_one_screen_with_a_line_for_each_option(cli: Any) -> None:  # noqa: F811
    lines = cli("train", "--help").out.splitlines()
    assert len(lines) <= 50
    assert max(map(len, lines)) <= 80
    named = [line.split()[0].strip(",") for line in lines if re.match(r"  -", line)]
    assert len(named) == len(train.params)
    wrapped = [line for line in lines[lines.index("Data:") :] if line.startswith("   ")]
    assert len(wrapped) == 1, "the kinds of draft alone take two lines"


@pytest.mark.parametrize("arguments", [["train", "--help"], ["train", "--dump-config", *FLAGS, "--draft", "eagle3"]])
def test_help_and_dump_load_no_heavy_library(arguments: list[str]) -> None:
    loaded = loaded_after("from spec_convert.cli import run; assert run(sys.argv[1:]) == 0", *arguments)
    assert loaded & HEAVY <= ({"pydantic"} if "--dump-config" in arguments else set())


def test_a_refusal_loads_no_torch(folder: Path) -> None:
    code = "from spec_convert.cli import run; assert run(sys.argv[1:]) == 2"
    arguments = ["train", *FLAGS, "--draft", "eagle3", "--d2t-path", "none", "--t2d-path", "none"]
    assert "torch" not in loaded_after(code, *arguments)


def test_the_page_explains_every_option_kind_loss_metric_and_ready_config() -> None:
    options = {option(name) for name in TrainSettings.model_fields} | {"--config", "--dump-config", "--json"}
    assert {name for name in options if f"`{name}" not in PAGE.text} == set()
    assert {word for word in (*KINDS, *LOSSES, *ready_configs()) if f"`{word}`" not in PAGE.text} == set()
    assert {name for name in Metrics.__dataclass_fields__ if f"`{name}`" not in PAGE.text} == set()


def test_the_run_on_the_page_is_one_that_can_be_read(tmp_path: Path) -> None:
    (text,) = PAGE.blocks("toml")
    (tmp_path / "run.toml").write_text(text)
    assert read_settings(tmp_path / "run.toml", {}).draft == "eagle3"
