"""A converted draft is accepted exactly as often as the original: the one proof that the text itself cannot give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Convert
from .real_vllm import Served, native, serve, unified

pytestmark = [pytest.mark.long, pytest.mark.vllm]

# Summation order differs between machines, and one near-tie shifts a handful of 1400 drafts.
ONE_POINT = 0.01


@pytest.fixture(scope="session")
def measured(real_drafts: Path) -> dict[str, Any]:
    """Prompts, settings, the verifier's own answers, and the counts of both drafts in their original layouts."""
    found: dict[str, Any] = json.loads((real_drafts / "measured.json").read_text())
    return found


def answer(llm: dict[str, Any], measured: dict[str, Any]) -> Served:
    return serve(llm | measured["llm_args"], prompts=measured["prompts"], sampling=measured["sampling"])


def test_a_converted_eagle3_draft_is_accepted_as_often_as_the_original(
    convert: Convert, real_drafts: Path, smollm2: Path, measured: dict[str, Any]
) -> None:
    output = convert(real_drafts / "eagle3_smol135", verifier=smollm2)

    served = answer(unified(output), measured)

    expected = measured["eagle3_smol135"]["acceptance_per_position"]
    assert served.acceptance_per_position == pytest.approx(expected, abs=ONE_POINT)
    assert served.token_ids == measured["verifier_token_ids"]


def test_a_converted_eagle1_draft_is_accepted_as_often_as_the_original(
    convert: Convert, real_drafts: Path, smollm2: Path, measured: dict[str, Any]
) -> None:
    output = convert(real_drafts / "eagle1_smol135", verifier=smollm2)

    served = answer(native(output, verifier=smollm2, method="eagle", tokens=3), measured)

    expected = measured["eagle1_smol135"]["acceptance_per_position"]
    assert served.acceptance_per_position == pytest.approx(expected, abs=ONE_POINT)
    assert served.token_ids == measured["verifier_token_ids"]
