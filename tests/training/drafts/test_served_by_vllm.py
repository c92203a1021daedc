"""A stock vLLM serves what is saved, by its path alone, and drafts with the function that is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert.training.drafts.building import new_draft
from spec_convert.training.drafts.saving import save_draft
from spec_convert.training.drafts.shape import DraftShape
from spec_convert.verifier import open_verifier

from ...e2e.real_vllm import unified
from ...e2e.same_function import assert_same_function, serve_recorded
from ...e2e.tiny_pairs import write_verifier
from .conftest import some_tokens

pytestmark = [pytest.mark.vllm, pytest.mark.long]

LAYERS = {"target_layers": (2, 4, 5)}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "eagle3": ("eagle3", "llama", LAYERS),
    "eagle3, Qwen3 layers": ("eagle3", "qwen3", {"target_layers": (1, 3, 5, 7), "num_hidden_layers": 2}),
    "shared head": ("eagle3-shared-head", "llama", LAYERS),
    "shared head, stored": ("eagle3-shared-head", "llama", LAYERS),
    "eagle": ("eagle", "llama", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_vllm_computes_the_draft_that_was_saved(name: str, tmp_path: Path) -> None:
    kind, family, choices = CASES[name]
    verifier = write_verifier(tmp_path / "verifier", family)
    base, vocabulary = open_verifier(verifier), some_tokens() if kind == "eagle3" else None
    draft = new_draft(kind, base, DraftShape.model_validate(choices), vocabulary=vocabulary, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in draft.parameters():  # what training does: nothing is one, zero or the verifier's any more
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    output = tmp_path / "draft"
    save_draft(draft, output, verifier=base, provenance={}, dtype="float32", with_head=name.endswith("stored"))

    assert_same_function(serve_recorded(unified(output), verifier), output, verifier)
