"""No rule cries wolf: on checkpoints that are sound, and on what becomes of them, every single one is silent.

Only what is true and asks for nothing may be said: the table below lists it, fixture by fixture.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import spec_convert
from spec_convert.findings import Depth, Level
from spec_convert.rules import RULES

from ..e2e.conftest import real_drafts, smollm2  # noqa: F401

FIXTURES = Path(__file__).parents[1] / "goldens" / "fixtures"
GOOD = sorted(
    path.parent.name
    for path in FIXTURES.glob("*/expect.json")
    if not json.loads(path.read_text(encoding="utf-8"))["should_refuse"]
)
NO_STOCK_VLLM, FROZEN_COPY = "needs-the-vllm-plugin", "embedding-is-the-verifiers"
# What is true of a fixture: of the checkpoint as it is, and of what it is converted to.
TRUE = {
    "eagle1_bf16": {"dtype-differs"},
    "eagle1_legacy_pickle": {"dtype-differs"},
    "eagle1_llama3": {"dtype-differs"},
    "eagle1_qwen2": {NO_STOCK_VLLM},
    "eagle1_sharded": {"dtype-differs"},
    "eagle1_vicuna": {"dtype-differs", "rope-theta-absent", NO_STOCK_VLLM},
    # The file does not tell which of ModelOpt's two networks was trained: the one warning that a sound draft gets.
    "eagle3_modelopt": {"t2d-rebuilt", "trainer-differs-from-servers"},
    "eagle3_modelopt_double_norm": {"t2d-rebuilt", "trainer-differs-from-servers"},
    "eagle3_safeai": {"rope-theta-absent"},
    "eagle3_safeai_own_embed": {"rope-theta-absent"},
    "eagle3_specforge": {"rope-as-trained-unknown"},
    "eagle3_shared_head": {"dtype-differs", "rope-theta-absent"},
    "eagle_mlp_beginner": {NO_STOCK_VLLM},
    "eagle_ttt_layernorms": {"dtype-differs", NO_STOCK_VLLM},
    "hass_llama3": {"dtype-differs", NO_STOCK_VLLM},
    "speculators03_eagle_layernorms": {NO_STOCK_VLLM},
    "eagle3_smol135": {"rope-theta-absent"},
}
ONLY_WITHOUT_A_VERIFIER = {
    "aux-layer-ids-need-verifier": {
        "eagle3_safeai", "eagle3_safeai_own_embed", "eagle3_shared_head", "eagle3_specforge_31", "eagle3_smol135",
    },
}  # fmt: skip
ONLY_WITH_ITS_VERIFIER = {
    "positions-extended": {"eagle1_smol135", "eagle3_smol135"},
    FROZEN_COPY: {
        "eagle1_bf16", "eagle1_fp16", "eagle1_legacy_pickle", "eagle1_llama3", "eagle1_qwen2", "eagle1_sharded",
        "eagle1_smol135", "eagle1_vicuna", "eagle_ttt_layernorms", "hass_llama3",
    },
}  # fmt: skip
LASTING = {NO_STOCK_VLLM, FROZEN_COPY}  # what converting does not settle
REAL = ("eagle1_smol135", "eagle3_smol135")


def said(source: Path, verifier: Path | None) -> set[str]:
    (checked,) = spec_convert.validate(source, verifier=verifier, level="forward").checked
    assert checked.reached is Depth.FORWARD, "silent because nobody looked"
    return {finding.rule for finding in checked.findings}


def true_of(name: str, *, with_verifier: bool) -> set[str]:
    depends = ONLY_WITH_ITS_VERIFIER if with_verifier else ONLY_WITHOUT_A_VERIFIER
    return TRUE.get(name, set()) | {rule for rule, names in depends.items() if name in names}


def true_of_the_conversion(name: str, *, with_verifier: bool) -> set[str]:
    """Of all that, what is as true of the result."""
    return true_of(name, with_verifier=with_verifier) & LASTING


@pytest.fixture
def converted(name: str, tmp_path: Path) -> Path:
    source, verifier = FIXTURES / name / "checkpoint", FIXTURES / name / "verifier"
    return spec_convert.convert(source, tmp_path / "converted", verifier=verifier).output


@pytest.mark.parametrize("name", GOOD)
def test_a_sound_checkpoint_on_its_own(name: str) -> None:
    assert said(FIXTURES / name / "checkpoint", None) == true_of(name, with_verifier=False)


@pytest.mark.parametrize("name", GOOD)
def test_a_sound_checkpoint_with_its_verifier(name: str) -> None:
    assert said(FIXTURES / name / "checkpoint", FIXTURES / name / "verifier") == true_of(name, with_verifier=True)


@pytest.mark.parametrize("name", GOOD)
def test_its_conversion_on_its_own(name: str, converted: Path) -> None:
    assert said(converted, None) == true_of_the_conversion(name, with_verifier=False)


@pytest.mark.parametrize("name", GOOD)
def test_its_conversion_with_its_verifier(name: str, converted: Path) -> None:
    assert said(converted, FIXTURES / name / "verifier") == true_of_the_conversion(name, with_verifier=True)


@pytest.mark.long
@pytest.mark.parametrize("name", REAL)
def test_a_real_draft_and_its_conversion(
    name: str,
    real_drafts: Path,  # noqa: F811
    smollm2: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    draft = real_drafts / name
    assert said(draft, None) == true_of(name, with_verifier=False)
    assert said(draft, smollm2) == true_of(name, with_verifier=True)
    converted = spec_convert.convert(draft, tmp_path / "converted", verifier=smollm2).output
    assert said(converted, None) == true_of_the_conversion(name, with_verifier=False)
    assert said(converted, smollm2) == true_of_the_conversion(name, with_verifier=True)


def test_the_tables_name_nothing_that_is_not_there() -> None:
    depends = [*ONLY_WITHOUT_A_VERIFIER.values(), *ONLY_WITH_ITS_VERIFIER.values()]
    assert sorted(set(TRUE).union(*depends) - {*GOOD, *REAL}) == []
    assert len(GOOD) > 15


def test_nothing_that_is_sound_is_called_an_error() -> None:
    rules = set(ONLY_WITH_ITS_VERIFIER).union(*TRUE.values())
    assert {rule for rule in rules if RULES[rule].level is not Level.NOTE} == {"trainer-differs-from-servers"}
