"""The demo's draft on disk: the layout of EAGLE's authors, which the hub must recognise and keep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from spec_convert import convert, detect, load_draft
from spec_convert.demo.eagle1 import fresh_draft, published_draft, save_as_published
from spec_convert.models.draft import VerifierTensors
from spec_convert.models.eagle import EagleDraft
from spec_convert.verifier import Verifier


@pytest.fixture
def published(draft: EagleDraft, verifier: Verifier, tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    save_as_published(draft, verifier, folder)
    return folder


def test_the_published_folder_is_recognised_as_eagle(published: Path) -> None:
    detection = detect(published)
    assert detection.format == "eagle"
    assert detection.features["own_embeddings"] is True


def test_the_published_tensors_are_half_precision(published: Path) -> None:
    assert {tensor.dtype for tensor in torch.load(published / "pytorch_model.bin").values()} == {torch.float16}


def test_the_published_config_has_the_verifiers_rotary_base(published: Path) -> None:
    assert json.loads((published / "config.json").read_text())["rope_theta"] == 5000.0


def test_reading_back_gives_the_draft_rounded_to_half_precision(
    published: Path, draft: EagleDraft, verifier: Verifier, shared: VerifierTensors
) -> None:
    tensors = published_draft(published, verifier, shared).state_dict()
    for name, tensor in draft.state_dict().items():
        assert torch.equal(tensors[name], tensor.half().float())


def test_conversion_keeps_what_the_published_draft_computes(
    published: Path, verifier: Verifier, shared: VerifierTensors, tmp_path: Path
) -> None:
    convert(published, tmp_path / "unified", verifier=verifier.name, validate=True)
    rows = torch.arange(12)[None], torch.randn(1, 12, 16)
    before, after = published_draft(published, verifier, shared), load_draft(tmp_path / "unified", verifier.name)
    torch.testing.assert_close(after(*rows), before(*rows), rtol=0, atol=1e-5)


def test_a_fresh_draft_is_always_the_same(draft: EagleDraft, verifier: Verifier, shared: VerifierTensors) -> None:
    torch.manual_seed(7)
    assert torch.equal(fresh_draft(verifier, shared).fc.weight, draft.fc.weight)
