"""The files with which other projects put the validator into CI, run as their CI would run them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CASE = ROOT / "tests" / "goldens" / "fixtures" / "eagle1_vicuna"
BIN = Path(sys.executable).parent
EXAMPLES = ROOT / "examples" / "ci"
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
STEPS = {step.get("name", "Python"): step for step in ACTION["runs"]["steps"]}
[HOOK] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
PER_INPUT = re.compile(r"\$\{\{ inputs\.([a-z-]+) \}\}")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with a good draft, a broken one, and what is no draft at all."""
    for name in ("good", "broken"):
        shutil.copytree(CASE / "checkpoint", tmp_path / "drafts" / name)
    [weights] = (tmp_path / "drafts" / "broken").glob("pytorch_model.bin")
    weights.write_bytes(weights.read_bytes()[:100])
    (tmp_path / "package.json").write_text("{}")
    for words in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run_step(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_step("Validate", sources="…")`: the script of a step, with the shell and variables that GitHub gives it."""

    def run(name: str, **inputs: str) -> subprocess.CompletedProcess[str]:
        given = {key: spec.get("default", "") for key, spec in ACTION["inputs"].items()}
        given |= {key.replace("_", "-"): value for key, value in inputs.items()}
        variables = {
            key: PER_INPUT.sub(lambda found: given[found[1]], text) for key, text in STEPS[name]["env"].items()
        }
        script = tmp_path / "script.sh"
        script.write_text(STEPS[name]["run"])
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "PYTHON"))}
        there = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script],
            env=clean | there | variables,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_good_draft_passes_with_a_summary(run_step: Any, place: Path) -> None:
    ran = run_step("Validate", sources="drafts/good")
    assert ran.returncode == 0, ran.stderr
    assert "::error" not in ran.stdout
    assert "in 1 checkpoint" in (place / "summary.md").read_text()


def test_a_broken_draft_fails_the_step_with_an_annotation(run_step: Any, place: Path) -> None:
    ran = run_step("Validate", sources="drafts/good\n  drafts/broken\n")
    assert ran.returncode == 1
    [annotation] = [line for line in ran.stdout.splitlines() if line.startswith("::error")]
    assert "file=drafts/broken/pytorch_model.bin" in annotation
    assert "| error |" in (place / "summary.md").read_text()
    assert "in 2 checkpoints" in ran.stdout


def test_sources_may_be_given_as_a_pattern(run_step: Any, place: Path) -> None:
    ran = run_step("Validate", sources="drafts/*")
    assert ran.returncode == 1
    assert "in 2 checkpoints" in ran.stdout


def test_a_source_that_is_not_there_is_no_verdict(run_step: Any, place: Path) -> None:
    assert run_step("Validate", sources="drafts/none").returncode == 2


def test_no_sources_are_a_mistake(run_step: Any, place: Path) -> None:
    ran = run_step("Validate", sources=" \n ")
    assert ran.returncode == 2
    assert ran.stdout.startswith("::error title=spec-convert::")


def test_warnings_fail_the_step_when_that_is_asked_for(run_step: Any, place: Path) -> None:
    config = place / "drafts" / "good" / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 1', '"num_hidden_layers": 2'))

    def code(strict: str) -> int:
        return int(run_step("Validate", sources="drafts/good", strict=strict).returncode)

    assert "::warning" in run_step("Validate", sources="drafts/good").stdout
    assert (code(""), code("true"), code("yes")) == (0, 1, 2)
    (place / "spec-convert.toml").write_text("strict = true\n")
    assert (code(""), code("false")) == (1, 0), "an empty input leaves the word to the settings"


def test_every_input_reaches_the_command(run_step: Any, place: Path) -> None:
    shutil.copytree(CASE / "verifier", place / "the verifier")
    wrong = {
        "level": ("deep", "'deep' is not one of"),
        "verifier": ("no such folder", "no such folder"),
        "args": ("--no-such-option", "No such option"),
    }
    for name, (value, complaint) in wrong.items():
        ran = run_step("Validate", sources="drafts/good", **{name: value})
        assert ran.returncode == 2, name
        assert complaint in ran.stdout + ran.stderr, name
    ran = run_step("Validate", sources="drafts/good", verifier="the verifier", level="tensors")
    assert ran.returncode == 0, ran.stderr


def test_acceptance_is_measured_against_a_threshold(run_step: Any, place: Path) -> None:
    ran = run_step(
        "Validate", sources="drafts/good", level="acceptance", prompts="none.jsonl", min_acceptance_length="x"
    )
    assert ran.returncode == 2
    assert "--min-acceptance-length" in ran.stderr


def test_the_sarif_log_tells_the_same(run_step: Any, place: Path) -> None:
    ran = run_step("Validate", sources="drafts/*", sarif="logs of CI/found.sarif")
    assert ran.returncode == 1, "the verdict is that of the first look"
    log = json.loads((place / "logs of CI" / "found.sarif").read_text())
    found = {(result["ruleId"], result["level"]) for result in log["runs"][0]["results"]}
    assert ("unreadable-container", "error") in found


def test_no_log_is_left_when_nothing_could_be_looked_at(run_step: Any, place: Path) -> None:
    assert run_step("Validate", sources="drafts/good", level="deep", sarif="found.sarif").returncode == 2
    assert not (place / "found.sarif").exists()


@pytest.mark.parametrize("name", ["sources", "verifier", "level", "strict", "prompts", "args", "sarif"])
def test_nothing_that_is_put_into_an_input_is_executed(run_step: Any, place: Path, name: str) -> None:
    # Every quote is closed: so it would run if it were part of a script, instead of being a mistake in it.
    evil = "a$(touch owned)b `touch owned` 'two words' \"and $(touch owned)\"\nc"
    run_step("Validate", **({"sources": "drafts/good"} | {name: evil}))
    assert not (place / "owned").exists()


def test_an_option_among_the_sources_is_a_source(run_step: Any, place: Path) -> None:
    ran = run_step("Validate", sources="--help")
    assert ran.returncode == 2
    assert "Usage" not in ran.stdout


def test_scripts_get_inputs_from_the_environment_only() -> None:
    for step in STEPS.values():
        assert "${{" not in step.get("run", "")
        assert "eval" not in step.get("run", "").replace("[evaluate]", "")


def test_every_input_is_used() -> None:
    used = set(re.findall(r"inputs\.([a-z-]+)", json.dumps(ACTION["runs"])))
    assert used == set(ACTION["inputs"])


@pytest.mark.parametrize(
    ("inputs", "installed"), [({}, "Would install spec-convert-"), ({"version": "0.0.0.dev0"}, None)]
)
def test_the_action_installs_the_release_that_it_came_with(
    run_step: Any,
    copy_checkout: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    inputs: Any,
    installed: str | None,
) -> None:
    """pip is told to look and not to touch: this environment keeps its own spec-convert."""
    for name in ("DRY_RUN", "NO_DEPS", "NO_INDEX", "IGNORE_INSTALLED"):
        monkeypatch.setenv(f"PIP_{name}", "1")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")
    monkeypatch.setenv("PIP_QUIET", "0")
    monkeypatch.setitem(STEPS["Install spec-convert"]["env"], "ACTION", str(copy_checkout()))
    ran = run_step("Install spec-convert", **inputs)
    if installed is None:
        assert "spec-convert==0.0.0.dev0" in ran.stderr
    else:
        assert ran.returncode == 0, ran.stderr


def test_pre_commit_takes_the_manifest(place: Path) -> None:
    ran = pre_commit("validate-manifest", str(ROOT / ".pre-commit-hooks.yaml"), cwd=place)
    assert ran.returncode == 0, ran.stdout


def pre_commit(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    there = {"PATH": f"{BIN}:{os.environ['PATH']}", "PRE_COMMIT_HOME": str(cwd / ".pre-commit-home")}
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", *words, "--color=never"],
        cwd=cwd, env=os.environ | there, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def hooked(place: Path) -> Path:
    """The repository with the hook in it. `pre-commit try-repo` would build an environment with torch; so the hook is
    run by the spec-convert that is here, with the files that pre-commit chooses for it."""
    local = HOOK | {"language": "system"}
    config = {"repos": [{"repo": "local", "hooks": [local]}]}
    (place / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    subprocess.run(["git", "add", "."], cwd=place, check=True)
    return place


def test_the_hook_stops_a_broken_draft(hooked: Path) -> None:
    ran = pre_commit("run", cwd=hooked)
    assert ran.returncode == 1
    assert "drafts/broken" in ran.stdout
    assert "1 error" in ran.stdout


def test_the_hook_lets_a_good_draft_pass(hooked: Path) -> None:
    subprocess.run(["git", "rm", "-r", "--quiet", "--cached", "drafts/broken"], cwd=hooked, check=True)
    ran = pre_commit("run", cwd=hooked)
    assert ran.returncode == 0, ran.stdout
    assert "Passed" in ran.stdout


def test_the_hook_looks_at_drafts_only(hooked: Path) -> None:
    subprocess.run(["git", "rm", "-r", "--quiet", "--cached", "drafts"], cwd=hooked, check=True)
    assert "no files to check" in pre_commit("run", cwd=hooked).stdout


def test_the_hook_looks_once_at_a_draft_of_several_files(place: Path) -> None:
    files = sorted(str(path) for path in Path("drafts/good").iterdir())
    assert len(files) > 1
    command = [str(BIN / "python"), "-m", *shlex.split(HOOK["entry"].replace("spec-convert", "spec_convert")), *files]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "in 1 checkpoint" in ran.stdout


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.y*ml")) + sorted(EXAMPLES.glob(".*.yaml")), ids=str)
def test_examples_ask_for_this_version(path: Path) -> None:
    text = path.read_text()
    yaml.safe_load(text)
    asked = re.findall(r"spec-convert(?:@v|==)([\w.]+)|rev: v([\w.]+)", text)
    assert {one or other for one, other in asked} == {version("spec-convert")}


def test_the_workflow_uses_what_the_action_has() -> None:
    steps = yaml.safe_load((EXAMPLES / "drafts.yml").read_text())["jobs"]["validate"]["steps"]
    [ours] = [step for step in steps if "/spec-convert@" in step["uses"]]
    assert ours["with"].keys() <= ACTION["inputs"].keys()
    [upload] = [step for step in steps if "upload-sarif" in step["uses"]]
    assert upload["with"]["sarif_file"] == ours["with"]["sarif"]
    assert ours["with"]["sarif"] in upload["if"]


def test_the_hook_that_the_example_names_is_there(place: Path) -> None:
    shutil.copy(EXAMPLES / ".pre-commit-config.yaml", place)
    assert pre_commit("validate-config", cwd=place).returncode == 0
    [repo] = yaml.safe_load((EXAMPLES / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["id"] for hook in repo["hooks"]] == [HOOK["id"]]


def test_the_gitlab_job_writes_the_report_that_it_uploads(place: Path) -> None:
    job = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text())["validate-drafts"]
    install, validate = job["script"]
    assert install.startswith("pip install ")
    ran = subprocess.run(
        ["bash", "-e", "-c", validate], env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}, check=False
    )
    assert ran.returncode == 1
    assert "drafts/broken" in (place / job["artifacts"]["reports"]["junit"]).read_text()
