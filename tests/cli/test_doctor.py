"""`spec-convert doctor` on what it cannot examine. What it finds: tests/doctor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from spec_convert.cli import run

from ..tiny import Tiny


def test_a_draft_of_another_type_is_refused(peagle: Callable[..., Tiny], capfd: pytest.CaptureFixture[str]) -> None:
    draft = peagle()
    assert run(["doctor", str(draft.write()), "--verifier", str(draft.verifier)]) == 2
    assert "there are no hypotheses for drafts of type `peagle`" in capfd.readouterr().err


def test_a_verifier_of_other_sizes_is_refused(
    eagle: Callable[..., Tiny], make_verifier: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    wider = make_verifier("wider", hidden_size=32)
    assert run(["doctor", str(eagle().write()), "--verifier", str(wider)]) == 2
    assert "does not fit its verifier" in capfd.readouterr().err


def test_a_draft_that_cannot_be_converted_is_refused_with_its_findings(
    eagle: Callable[..., Tiny], capfd: pytest.CaptureFixture[str]
) -> None:
    draft = eagle()
    del draft.tensors["fc.weight"]
    assert run(["doctor", str(draft.write()), "--verifier", str(draft.verifier)]) == 1
    assert "fc.weight" in capfd.readouterr().err
