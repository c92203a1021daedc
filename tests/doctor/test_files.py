"""A draft that computes what it learned, in files that servers read otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from spec_convert.cli import run

from .conftest import Break


def test_a_sound_draft_in_a_folder_that_servers_misread_is_not_clean(
    eagle3: Path, broken: Callable[[Path, Break], Path], verifier: Path, questions: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    draft = broken(eagle3, lambda config, tensors: None)
    shutil.copy(draft / "model.safetensors", draft / "optimizer.safetensors")
    flags = ["--verifier", str(verifier), "--prompts", str(questions), "--max-tokens", "40"]
    assert run(["-q", "doctor", str(draft), *flags]) == 1
    said = capfd.readouterr().out
    assert "cause       none that is computed: nothing that was tried helps" in said
    assert "likely      optimizer.safetensors: vLLM also loads optimizer.safetensors [weights-beside]" in said
