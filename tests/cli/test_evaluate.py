"""`spec-convert evaluate`: any draft, measured; its figures as text, JSON and a page; one clear line when it cannot be.

Tiny random models and the engine transformers, for real. The engine vllm is measured in tests/e2e.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spec_convert import evaluate
from spec_convert.evaluation import evaluation, vllm_engine
from spec_convert.evaluation.measured import Difference, Measured, Speed
from spec_convert.evaluation.prompt import Prompt
from spec_convert.serving import versions

from ..evaluation.conftest import verifier, with_tokenizer  # noqa: F401  a verifier that can be asked

CONTRACT = (
    "acceptance_per_position", "mean_acceptance_length", "lossless", "tokens_per_second", "engine", "prompts"
)  # fmt: skip
MEASURED = Measured(
    engine="vllm", draft="/drafts/one", verifier="org/base", speculative_tokens=2, temperature=0.0, prompts=2,
    answers=3, drafts=8, accepted=(6, 0), alpha=(0.75, None), with_draft=Speed(tokens=60, seconds=2.0),
    verifier_alone=Speed(tokens=60, seconds=3.0), differences=(), versions={"vllm": "0.32.0"},
)  # fmt: skip
TIE = Difference(answer=1, position=4, with_draft=7, verifier=9, logits=(12.5, 12.5000001), tie=True)
WRONG = Difference(answer=2, position=0, with_draft=None, verifier=9, logits=None, tie=False)


@pytest.fixture
def draft(with_tokenizer: Callable[..., Path], eagle3: Callable[..., Any]) -> Any:  # noqa: F811
    """A native EAGLE-3 checkpoint, and beside it the verifier with tokenizer and chat template."""
    with_tokenizer()
    made = eagle3()
    made.write()
    return made


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    rows = [{"turns": ["t5 t6", "t7"]}, {"system": "t9", "prompt": "t8 t3"}, {"prompt": "t4"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[[Measured], None]:
    """`found(measured)`: what the evaluation finds, whatever it is asked."""
    return lambda measured: monkeypatch.setattr(evaluation, "evaluate", lambda *args, **flags: measured)


def test_a_native_draft_is_converted_and_measured(cli: Any, draft: Any, prompts: Path, tmp_path: Path) -> None:
    page, kept = tmp_path / "report.html", tmp_path / "evaluation.json"
    ran = cli(
        "evaluate", draft.folder, "--verifier", draft.verifier, "--prompts", prompts, "--limit", 2, "--max-tokens", 12,
        "--speculative-tokens", 2, "--report", page, "--output", kept, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert set(CONTRACT) < set(ran.json)
    assert (ran.json["engine"], ran.json["prompts"], ran.json["answers"]) == ("transformers", 2, 3)
    assert ran.json["lossless"] is True
    assert len(ran.json["acceptance_per_position"]) == len(ran.json["alpha"]) == 2
    assert ran.json["drafts"] > 0
    assert ran.json["tokens"]["with_draft"] == ran.json["tokens"]["verifier_alone"] > 0
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert kept.read_text() == ran.out


def test_the_python_function_takes_prompts_as_values(draft: Any) -> None:
    prompts = [Prompt(turns=("t5 t6",)), Prompt(turns=("t7",))]
    measured = evaluate(draft.folder, prompts, verifier=draft.verifier, limit=1, max_tokens=6, compare=False)
    assert (measured.prompts, measured.lossless, measured.verifier_alone) == (1, None, None)
    assert measured.speculative_tokens == 3  # as the draft's own config says


def test_the_figures_are_told_in_a_short_table(cli: Any, found: Any, prompts: Path, tmp_path: Path) -> None:
    found(replace(MEASURED, differences=(TIE,)))
    ran = cli("evaluate", "draft", "--prompts", prompts, "--report", tmp_path / "page.html")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[2:7] == [
        "engine      vllm, greedy; 2 prompts, 3 answers",
        "",
        "position  acceptance  conditional  alpha",
        "1         0.750       0.750        0.750",
        "2         0.000       0.000        -",
    ]
    assert lines[8:] == [
        "tau         1.750 tokens per verifier pass, its own bonus token included",
        "speed       30.0 tokens/s with the draft, 20.0 without: 1.50 times as fast",
        "lossless    yes: 2 of 3 answers are the verifier's own, token by token; 1 part at a numerical tie",
        "            tie in answer 1, token 4, counted from 0: token 7 with the draft, token 9 without "
        "(logits 12.5 and 12.5)",
        f"report      {tmp_path / 'page.html'}",
    ]


def test_what_was_not_measured_is_said_to_be_so(cli: Any, found: Any, prompts: Path) -> None:
    found(replace(MEASURED, alpha=None, verifier_alone=None, differences=None))
    out = cli("evaluate", "draft", "--prompts", prompts).out
    assert "1         0.750       0.750        -" in out
    assert out.count("the verifier alone was not run") == 2
    found(replace(MEASURED, temperature=0.7, differences=None))
    out = cli("evaluate", "draft", "--prompts", prompts).out
    assert "temperature 0.7" in out
    assert "not compared: sampled text differs" in out


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_text_that_is_not_the_verifiers_fails_the_command(
    cli: Any, found: Any, prompts: Path, flags: tuple[str, ...]
) -> None:
    found(replace(MEASURED, differences=(TIE, WRONG)))
    ran = cli("evaluate", "draft", "--prompts", prompts, *flags)
    assert ran.code == 1
    assert "error: 1 of 3 answers are not the verifier's own text" in ran.err
    if flags:
        assert ran.json["lossless"] is False
    else:
        assert "DIFFERENCE in answer 2, token 0, counted from 0: the end with the draft, token 9 without" in ran.out


def test_arguments_for_vllm_are_values_and_reach_it(
    cli: Any, draft: Any, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    def measure(*args: Any, **settings: Any) -> Measured:
        given.append(settings)
        return MEASURED

    monkeypatch.setattr(vllm_engine, "measure", measure)
    monkeypatch.setattr(versions, "installed", lambda: "0.32.0")
    pairs = ("max_model_len=64", "enforce_eager=True", "quantization=fp8", 'hf_overrides={"a": [1]}')
    words = [word for pair in pairs for word in ("--llm-arg", pair)]
    ran = cli(
        "evaluate", draft.folder, "--verifier", draft.verifier, "--prompts", prompts, "--engine", "vllm",
        "--no-compare", "--dtype", "bfloat16", *words,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    [settings] = given
    expected = {"max_model_len": 64, "enforce_eager": True, "quantization": "fp8", "hf_overrides": {"a": [1]}}
    assert settings["llm_args"] == expected
    assert (settings["alone"], settings["dtype"], settings["speculative_tokens"]) == (False, "bfloat16", None)


# One clear line, exit code 2, and what to type next


def refusal(ran: Any) -> str:
    assert ran.code == 2
    said = [line for line in ran.err.splitlines() if not line.startswith(("INFO", "Usage", "Try", "\n"))]
    assert len(said) in (1, 2), ran.err
    return " ".join(filter(None, said))


def test_an_engine_that_is_not_installed_is_named_with_the_command_that_installs_it(
    cli: Any, draft: Any, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "installed", lambda: None)
    said = refusal(cli("evaluate", draft.folder, "--prompts", prompts, "--engine", "vllm"))
    assert "vLLM is not installed" in said
    assert versions.INSTALL in said
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "transformers" else find(name))
    said = refusal(cli("evaluate", draft.folder, "--prompts", prompts))
    assert "transformers is not installed" in said
    assert "pip install 'spec-convert[evaluate]'" in said


def test_a_verifier_that_is_not_there_or_does_not_fit_is_refused(
    cli: Any, draft: Any, prompts: Path, make_verifier: Callable[..., Path], tmp_path: Path
) -> None:
    common = ("evaluate", draft.folder, "--prompts", prompts)
    assert "does not say which model it was trained for" in refusal(cli(*common))
    assert "is no file or folder here and no id" in refusal(cli(*common, "--verifier", tmp_path / "absent"))
    unified = draft.convert().output
    other = make_verifier("other", hidden_size=24)
    said = refusal(cli("evaluate", unified, "--prompts", prompts, "--verifier", other))
    assert "does not fit" in said
    assert "--verifier BASE" in said


def test_wrong_flags_are_refused_before_anything_is_loaded(cli: Any, draft: Any, prompts: Path, tmp_path: Path) -> None:
    common = ("evaluate", draft.folder, "--verifier", draft.verifier, "--prompts")
    assert "is no file here" in refusal(cli(*common, tmp_path / "absent.jsonl"))
    for option in ("--report", "--output"):
        assert "there is no folder" in refusal(cli(*common, prompts, option, tmp_path / "absent" / "file"))
    assert "add --engine vllm" in refusal(cli(*common, prompts, "--llm-arg", "max_model_len=8"))
    assert "not of the form KEY=VALUE" in cli(*common, prompts, "--llm-arg", "max_model_len").err
    assert not (tmp_path / "cache").exists()


def test_what_was_measured_is_told_even_when_the_page_cannot_be_written(
    cli: Any, found: Any, prompts: Path, tmp_path: Path
) -> None:
    found(MEASURED)
    page = tmp_path / "page.html"
    page.symlink_to(tmp_path / "nowhere" / "page.html")
    ran = cli("evaluate", "draft", "--prompts", prompts, "--report", page)
    assert ran.code == 2
    assert f"cannot write {page}" in ran.err
    assert "tau " in ran.out


def test_a_file_is_whole_or_what_it_was(
    cli: Any, found: Any, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found(MEASURED)
    kept = tmp_path / "evaluation.json"
    kept.write_text("what it was")
    asked = ("evaluate", "draft", "--prompts", prompts, "--output")

    def full(path: Path, text: str, **_: Any) -> int:
        path.write_bytes(text.encode()[:9])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        assert f"cannot write {kept}: No space left" in cli(*asked, kept).err
    assert kept.read_text() == "what it was"
    (tmp_path / "link").symlink_to(kept)
    assert cli(*asked, tmp_path / "link").code == 0
    assert (tmp_path / "link").is_symlink()
    assert json.loads(kept.read_text())["drafts"] == MEASURED.drafts
    assert cli(*asked, "/dev/null").code == 0


def test_nothing_measured_is_no_acceptance_of_zero(cli: Any, draft: Any, prompts: Path) -> None:
    ran = cli("evaluate", draft.folder, "--verifier", draft.verifier, "--prompts", prompts, "--max-tokens", 1)
    assert ran.code == 2
    assert "nothing was measured" in ran.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--verbose"], "--verbose shows what vLLM prints"),
        (["--temperature", "nan"], "cannot sample at temperature nan"),
        (["--temperature", "1e-40"], "cannot sample at temperature 1e-40"),
    ],
)
def test_what_no_engine_can_do_is_refused_before_anything_is_loaded(
    cli: Any, prompts: Path, flags: list[str], message: str
) -> None:
    ran = cli("evaluate", "no/draft-is-opened", "--prompts", prompts, *flags)
    assert ran.code == 2
    assert message in ran.err
