"""`validate --level acceptance`: a draft that is accepted too rarely is an error; tiny models, for real."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spec_convert import validate
from spec_convert.errors import UsageError
from spec_convert.evaluation import evaluation
from spec_convert.evaluation.measured import Difference, Measured
from spec_convert.findings import Depth, Level

from ..evaluation.conftest import verifier, with_tokenizer  # noqa: F401  a verifier that can be asked
from ..tiny import Tiny

ASKED = ("--max-tokens", 8, "--speculative-tokens", 2)


@pytest.fixture
def draft(with_tokenizer: Callable[..., Path], eagle3: Callable[..., Tiny]) -> Tiny:  # noqa: F811
    """A native EAGLE-3 checkpoint, and beside it the verifier with tokenizer and chat template."""
    with_tokenizer()
    made = eagle3()
    made.write()
    return made


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("t5 t6", "t8 t3 t9")))
    return file


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, draft: Tiny, prompts: Path) -> Callable[..., None]:
    """`measured(accepted=(3, 1))`: what a real evaluation finds, with these counts in their place."""
    real = evaluation.evaluate(draft.folder, prompts, verifier=draft.verifier, max_tokens=8, speculative_tokens=2)

    def answer(**changes: Any) -> None:
        found: Measured = replace(real, **changes)
        monkeypatch.setattr(evaluation, "evaluate", lambda *args, **flags: found)

    return answer


def acceptance(cli: Any, draft: Tiny, prompts: Path, *more: object) -> Any:
    known = ("--verifier", draft.verifier, "--level", "acceptance", "--prompts", prompts)
    return cli("validate", draft.folder, *known, "--json", *more)


def rules(answer: dict[str, Any], *, level: str = "error") -> list[str]:
    return [finding["rule"] for finding in answer["findings"] if finding["level"] == level]


def test_a_native_draft_that_is_accepted_too_rarely_is_exit_1(cli: Any, draft: Tiny, prompts: Path) -> None:
    ran = acceptance(cli, draft, prompts, "--min-acceptance-length", 2.9, *ASKED)
    assert (ran.code, rules(ran.json)) == (1, ["acceptance-too-low"])
    assert ran.json["checked"][0]["level"] == "acceptance"
    [found] = [finding for finding in ran.json["findings"] if finding["rule"] == "acceptance-too-low"]
    assert re.match(
        r"mean acceptance length 1\.\d{3}, below 2\.9; accepted by position: 0\.\d{3}, 0\.\d{3}$", found["message"]
    )
    command = f"spec-convert evaluate {draft.folder} --verifier {draft.verifier} --prompts {prompts} --report page.html"
    assert f"`{command}`" in found["hint"]


def test_the_figure_is_that_of_evaluate_and_in_every_report(cli: Any, draft: Tiny, prompts: Path) -> None:
    known = ("--verifier", draft.verifier, "--prompts", prompts)
    tau = cli("evaluate", draft.folder, *known, *ASKED, "--no-compare", "--json").json["mean_acceptance_length"]
    ran = acceptance(cli, draft, prompts, "--min-acceptance-length", 1.0001, *ASKED)
    [note] = [finding["message"] for finding in ran.json["findings"] if finding["rule"] == "acceptance-measured"]
    assert f"mean acceptance length {tau:.3f} over " in note
    assert " drafts of 2 tokens in 2 answers with transformers; by position " in note


def test_a_unified_directory_needs_no_verifier_beside_the_one_that_it_names(
    cli: Any, draft: Tiny, prompts: Path, measured: Callable[..., None]
) -> None:
    unified = draft.convert().output
    measured(drafts=4, accepted=(4, 4))
    known = ("--level", "acceptance", "--prompts", prompts, "--min-acceptance-length", 2.5)
    ran = cli("validate", unified, *known, "--json")
    assert (ran.code, rules(ran.json), rules(ran.json, level="note")) == (0, [], ["acceptance-measured"])


def test_exactly_the_threshold_is_enough(cli: Any, draft: Tiny, prompts: Path, measured: Callable[..., None]) -> None:
    measured(drafts=4, accepted=(2, 1))
    assert acceptance(cli, draft, prompts, "--min-acceptance-length", 1.75).code == 0
    assert acceptance(cli, draft, prompts, "--min-acceptance-length", 1.7501).code == 1


def test_text_that_is_not_the_verifiers_own_is_an_error(
    cli: Any, draft: Tiny, prompts: Path, measured: Callable[..., None]
) -> None:
    wrong = Difference(answer=0, position=2, with_draft=7, verifier=9, logits=None, tie=False)
    measured(drafts=4, accepted=(4, 4), differences=(wrong, replace(wrong, tie=True)))
    ran = acceptance(cli, draft, prompts, "--min-acceptance-length", 2)
    assert (ran.code, rules(ran.json)) == (1, ["not-lossless"])
    assert "1 of 2 answers" in ran.json["findings"][-1]["message"]


def test_a_threshold_beyond_what_can_be_drafted_says_so(
    cli: Any, draft: Tiny, prompts: Path, measured: Callable[..., None]
) -> None:
    measured(drafts=4, accepted=(4, 4), speculative_tokens=2)
    ran = acceptance(cli, draft, prompts, "--min-acceptance-length", 3.5)
    assert "with 2 tokens at a time no draft gives more than 3" in ran.json["findings"][-1]["hint"]


def test_errors_at_a_level_before_end_the_look(cli: Any, draft: Tiny, prompts: Path) -> None:
    draft.tensors["fc.weight"][0, 0] = float("nan")
    draft.write()
    ran = acceptance(cli, draft, prompts, "--min-acceptance-length", 1.5, *ASKED)
    assert (ran.code, rules(ran.json)) == (1, ["not-finite"])
    assert ran.json["checked"][0]["level"] == "tensors"


def test_a_verifier_that_does_not_fit_is_a_finding(
    cli: Any, draft: Tiny, prompts: Path, make_verifier: Callable[..., Path]
) -> None:
    draft.verifier = make_verifier("other", vocab_size=33)
    ran = acceptance(cli, draft, prompts, "--min-acceptance-length", 1.5)
    assert (ran.code, rules(ran.json)) == (1, ["verifier-mismatch"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "level acceptance needs --prompts FILE and --min-acceptance-length X"),
        (("--prompts", "nowhere.jsonl"), "level acceptance needs --min-acceptance-length X"),
        (("--min-acceptance-length", 2), "level acceptance needs --prompts FILE"),
        (("--prompts", "nowhere.jsonl", "--min-acceptance-length", 2), "nowhere.jsonl is no file here"),
        (("--prompts", "p.txt", "--min-acceptance-length", 1), "of 1 asks for nothing: without any draft it is 1"),
        (("--prompts", "p.txt", "--min-acceptance-length", "nan"), "of nan asks for nothing"),
        (
            ("--prompts", "p.txt", "--min-acceptance-length", 3.5, "--speculative-tokens", 2),
            "of 3.5 is out of reach with 2 tokens at a time",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_read(cli: Any, flags: tuple[Any, ...], said: str) -> None:
    ran = cli("validate", "there/is-no-such-source", "--level", "acceptance", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


@pytest.mark.parametrize(
    "flags",
    [("--prompts", "p.txt"), ("--min-acceptance-length", 2), ("--engine", "vllm"), ("--limit", 3), ("--max-tokens", 9),
     ("--speculative-tokens", 2), ("--no-compare",), ("--compare",)],
)  # fmt: skip
def test_an_option_that_another_level_would_not_heed_is_refused(cli: Any, draft: Tiny, flags: tuple[Any, ...]) -> None:
    ran = cli("validate", draft.folder, "--level", "forward", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert "level forward measures no acceptance" in ran.err


def test_a_draft_that_names_no_verifier_is_asked_about_before_any_other_is_run(
    cli: Any, draft: Tiny, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unified = draft.convert().output
    monkeypatch.setattr(evaluation, "evaluate", lambda *args, **flags: pytest.fail("a draft was run"))
    known = ("--level", "acceptance", "--prompts", prompts, "--min-acceptance-length", 2)
    ran = cli("validate", unified, draft.folder, *known)
    assert (ran.code, ran.out) == (2, "")
    assert "does not say which model it was trained for" in ran.err


def test_from_python_prompts_may_be_values(draft: Tiny) -> None:
    from spec_convert.evaluation.prompt import Prompt

    report = validate(
        draft.folder, verifier=draft.verifier, level="acceptance", prompts=[Prompt(turns=("t5 t6",))],
        min_acceptance_length=2.9, max_tokens=6, speculative_tokens=2, compare=False,
    )  # fmt: skip
    [checked] = report.checked
    assert (checked.reached, checked.missed) == (Depth.ACCEPTANCE, None)
    assert [finding.rule for finding in checked.findings if finding.level is Level.ERROR] == ["acceptance-too-low"]
    with pytest.raises(UsageError, match="cannot take the first -1 prompts"):
        validate(
            draft.folder, verifier=draft.verifier, level="acceptance", prompts=[], min_acceptance_length=2, limit=-1
        )
