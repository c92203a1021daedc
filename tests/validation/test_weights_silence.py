"""Good drafts, as their authors' code wrote them and as they are converted, are told nothing that is not true."""

from __future__ import annotations

from pathlib import Path

import pytest

from spec_convert import convert, validate
from spec_convert.findings import Level

from ..e2e.conftest import real_drafts, smollm2  # noqa: F401  drafts and a verifier that were trained
from .test_weights import findings_of

FIXTURES = Path(__file__).parents[1] / "goldens" / "fixtures"
CASES = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())
REAL = ("eagle1_smol135", "eagle3_smol135")


def bad(source: Path, verifier: Path | None) -> list[str]:
    return [f.rule for f in findings_of(source, verifier).values() if f.level is not Level.NOTE]


@pytest.mark.parametrize("case", CASES)
def test_no_number_of_the_golden_drafts_is_wrong(case: str, tmp_path: Path) -> None:
    draft, verifier = FIXTURES / case / "checkpoint", FIXTURES / case / "verifier"
    converted = convert(draft, tmp_path / "converted", verifier=verifier).output
    for source in (draft, converted):
        assert bad(source, None) == []
        assert bad(source, verifier) == []


def test_there_are_golden_drafts() -> None:
    assert len(CASES) > 15


@pytest.mark.long
@pytest.mark.parametrize("case", REAL)
def test_nothing_is_wrong_with_trained_drafts(case: str, real_drafts: Path, smollm2: Path, tmp_path: Path) -> None:  # noqa: F811
    draft = real_drafts / case
    converted = convert(draft, tmp_path / "converted", verifier=smollm2).output
    for source in (draft, converted):
        report = validate(source, verifier=smollm2, level="tensors")
        assert [f.rule for one in report.checked for f in one.findings if f.level is not Level.NOTE] == []


@pytest.mark.long
def test_the_embedding_of_the_real_eagle_is_the_verifiers(real_drafts: Path, smollm2: Path) -> None:  # noqa: F811
    found = findings_of(real_drafts / "eagle1_smol135", smollm2)
    assert list(found) == ["embedding-is-the-verifiers"]
