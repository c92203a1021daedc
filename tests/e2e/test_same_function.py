"""Every dialect, converted and served: in vLLM the draft computes what the reference draft does, step after step."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Convert
from .real_vllm import unified
from .same_function import assert_same_function, serve_recorded
from .tiny_pairs import CASES, write_verifier

pytestmark = [pytest.mark.long, pytest.mark.vllm]


@pytest.mark.parametrize("name", CASES)
def test_vllm_computes_what_the_reference_draft_computes(name: str, convert: Convert, tmp_path: Path) -> None:
    case = CASES[name]
    verifier = write_verifier(tmp_path / "verifier", case.verifier)
    output = convert(case.write(tmp_path / "draft"), verifier=verifier, flags=case.flags)

    served = serve_recorded(unified(output), verifier)

    assert_same_function(served, output, verifier)
