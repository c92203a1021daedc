"""Fresh P-EAGLE drafts: what they begin with, and which token is their mask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert.errors import UsageError
from spec_convert.models.load import load_draft, read_torch
from spec_convert.models.peagle import PEagleDraft
from spec_convert.training.drafts.parallel import parallel
from spec_convert.training.drafts.saving import save_draft
from spec_convert.training.drafts.shape import DraftShape
from spec_convert.training.drafts.wanted import Wanted
from spec_convert.unified import PEagleConfig
from spec_convert.validation.validation import validate
from spec_convert.verifier import open_verifier

from ..small import HIDDEN, VOCABULARY
from .conftest import some_tokens

Changed = Callable[..., Path]
LAST = VOCABULARY - 1


def made(verifier: Path, vocabulary: Any = None, *, seed: int = 0, **choices: Any) -> PEagleDraft:
    wanted = Wanted(
        verifier=open_verifier(verifier), shape=DraftShape(target_layers=(1, 3, 5)).updated(**choices),
        vocabulary=vocabulary, generator=torch.Generator().manual_seed(seed), speculative_tokens=5,
    )  # fmt: skip
    draft = parallel(wanted)
    assert isinstance(draft, PEagleDraft)
    return draft


def config_of(draft: PEagleDraft) -> PEagleConfig:
    assert isinstance(draft.config, PEagleConfig)
    return draft.config


def test_it_is_eagle3_of_four_layers_with_a_mask_and_an_embedding_that_trains(verifier: Path) -> None:
    draft = made(verifier, some_tokens(), mask_token_id=LAST)
    assert len(draft.layers) == 4
    assert config_of(draft).mask_token_id == LAST
    assert config_of(draft).speculators_config.proposal_methods[0].speculative_tokens == 5
    trains = {name for name, parameter in draft.named_parameters() if parameter.requires_grad}
    assert trains == draft.state_dict().keys() - {"d2t", "t2d"}
    assert {"embed_tokens.weight", "mask_hidden"} <= trains
    base = open_verifier(verifier)
    assert torch.equal(draft.embed_tokens.weight, read_torch(base.checkpoint, base.embedding_name, torch.float32))
    assert draft.mask_hidden.shape == (1, 1, 3 * HIDDEN)


def test_the_same_seed_gives_the_same_draft_and_another_one_another(verifier: Path) -> None:
    first, again, other = (made(verifier, mask_token_id=LAST, seed=seed).mask_hidden for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_draft_of_another_width_is_made_too(verifier: Path) -> None:
    draft = made(verifier, mask_token_id=LAST, hidden_size=32, num_attention_heads=1, num_hidden_layers=2)
    assert (len(draft.layers), draft.fc.in_features, draft.embed_tokens.weight.shape[1]) == (2, 3 * HIDDEN, 32)


def test_the_token_that_pads_texts_is_the_mask_and_this_is_said(
    changed: Changed, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("spec_convert.training.drafts.parallel.say", said.append)
    assert config_of(made(changed(pad_token_id=300))).mask_token_id == 300
    assert any("The mask is token 300" in line for line in said)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"pad_token_id": ...}, "names no token for padding"),
        ({"pad_token_id": -1}, "names no token for padding"),
        ({"pad_token_id": 257}, "257, ends them too"),
        ({"pad_token_id": 257, "eos_token_id": [256, 257]}, "257, ends them too"),
    ],
)
def test_without_a_token_of_which_texts_are_free_one_must_be_chosen(
    changed: Changed, facts: dict[str, Any], reason: str
) -> None:
    folder = changed(**facts)
    with pytest.raises(UsageError, match=reason) as refused:
        made(folder)
    assert "mask_token_id = N" in refused.value.hint


def test_the_end_of_texts_may_be_told_beside_a_nested_text_config(changed: Changed, verifier: Path) -> None:
    text = json.loads((verifier / "config.json").read_text()) | {"pad_token_id": 300, "eos_token_id": 257}
    with pytest.raises(UsageError, match="300, ends them too"):
        made(changed(text_config=text, eos_token_id=[256, 300]))


def test_a_mask_that_the_verifier_does_not_know_is_refused(verifier: Path) -> None:
    with pytest.raises(UsageError, match=f"{VOCABULARY}, and .* has {VOCABULARY} tokens"):
        made(verifier, mask_token_id=VOCABULARY)


@pytest.mark.parametrize("reduced", [True, False])
def test_what_is_saved_is_sound_and_the_same_draft(verifier: Path, tmp_path: Path, reduced: bool) -> None:
    draft = made(verifier, some_tokens() if reduced else None, mask_token_id=LAST, num_hidden_layers=2)
    folder = tmp_path / "draft"
    save_draft(draft, folder, verifier=open_verifier(verifier), provenance={}, dtype="float32")
    (checked,) = validate(folder, verifier=verifier, level="forward").checked
    assert {finding.rule for finding in checked.findings} <= {"embedding-is-the-verifiers", "last-layer-state"}
    again = load_draft(folder)
    assert again.state_dict().keys() == draft.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in draft.state_dict().items())
