"""With transformers a draft is accepted as often as vLLM accepts it, and the text is the verifier's own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert.evaluation.answering import Answering
from spec_convert.evaluation.measured import Measured
from spec_convert.evaluation.prompt import Prompt
from spec_convert.evaluation.transformers_engine import measure
from spec_convert.servable import servable

pytestmark = pytest.mark.long

TWO_POINTS = 0.02


@pytest.fixture(autouse=True)
def every_core() -> Iterator[None]:
    """A real model computes with all of them."""
    few = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or few)
    yield
    torch.set_num_threads(few)


@pytest.mark.parametrize("name", ["eagle1_smol135", "eagle3_smol135"])
@pytest.mark.timeout(2400)  # thousands of tokens, one after another, on a CPU that others may use too
def test_acceptance_is_what_vllm_measured_and_the_text_is_the_verifiers(
    name: str, real_drafts: Path, smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: dict[str, Any] = json.loads((real_drafts / "measured.json").read_text())
    answers = heard(monkeypatch)

    found = run(real_drafts / name, smollm2, expected, alone=False)

    by_position = expected[name]["acceptance_per_position"]
    assert found.acceptance_per_position == pytest.approx(by_position, abs=TWO_POINTS)
    assert found.mean_acceptance_length == pytest.approx(expected[name]["mean_acceptance_length"], abs=0.04)
    assert answers == expected["verifier_token_ids"]
    assert (found.differences, found.lossless) == (None, None)


def test_what_the_verifier_says_alone_is_compared(real_drafts: Path, smollm2: Path) -> None:
    expected: dict[str, Any] = json.loads((real_drafts / "measured.json").read_text())
    few = expected | {"prompts": expected["prompts"][:4]}  # alone it takes minutes for all of them
    found = run(real_drafts / "eagle3_smol135", smollm2, few, alone=True)
    assert (found.differences, found.lossless) == ((), True)


def heard(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The token ids of every answer given with the draft."""
    answers: list[list[int]] = []
    give = Answering.answer

    def listening(self: Answering, asked: list[int]) -> list[int]:
        answers.append(give(self, asked))
        return answers[-1]

    monkeypatch.setattr(Answering, "answer", listening)
    return answers


def run(draft: Path, verifier: Path, expected: dict[str, Any], *, alone: bool) -> Measured:
    return measure(
        servable(draft, verifier=verifier),
        [Prompt(turns=(prompt,)) for prompt in expected["prompts"]],
        max_tokens=expected["sampling"]["max_tokens"],
        speculative_tokens=3,
        temperature=0.0,
        seed=0,
        alone=alone,
    )
