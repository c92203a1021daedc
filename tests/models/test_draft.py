"""Building a draft: every tensor used once, every parameter filled, or a reason why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from spec_convert.models.draft import Config, Draft, DraftError, VerifierTensors, borrows, build_draft
from spec_convert.unified import Eagle3Config, EagleConfig, EagleMlpConfig

Configs = Callable[..., Eagle3Config]
Drafts = Callable[[Config], Draft]
Tensors = Callable[[Config], dict[str, Tensor]]


def test_the_state_dict_is_the_checkpoint(
    eagle3_config: Configs, tensors_of: Tensors, verifier: VerifierTensors
) -> None:
    tensors = tensors_of(eagle3_config())
    state = build_draft(eagle3_config(), tensors, verifier).state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], tensors[name]) for name in tensors)


def test_a_built_draft_can_be_built_again_from_its_state_dict(
    eagle3_config: Configs, draft_of: Drafts, verifier: VerifierTensors
) -> None:
    draft = draft_of(eagle3_config())
    again = build_draft(eagle3_config(), draft.state_dict(), verifier)
    ids, states = torch.tensor([[1, 2, 3]]), torch.randn(1, 3, 48)
    assert torch.equal(again(ids, states).logits, draft(ids, states).logits)


def test_a_draft_with_its_own_embedding_does_not_ask_for_the_verifiers(
    eagle3_config: Configs, tensors_of: Tensors
) -> None:
    own = tensors_of(eagle3_config()) | {"embed_tokens.weight": torch.randn(32, 16)}
    assert "embed_tokens.weight" in build_draft(eagle3_config(), own).state_dict()


def test_a_full_vocabulary_head_may_be_the_drafts_own(eagle3_config: Configs, tensors_of: Tensors) -> None:
    config = eagle3_config(draft_vocab_size=32)
    own = tensors_of(config) | {"embed_tokens.weight": torch.randn(32, 16), "lm_head.weight": torch.randn(32, 16)}
    draft = build_draft(config, own)
    assert torch.equal(draft.lm_head.weight, own["lm_head.weight"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"norm.weight": None}, "norm.weight is missing"),
        ({"lm_head.weight": None}, "lm_head.weight is missing"),
        ({"t2d": None}, "t2d is missing"),
        ({"fc.bias": torch.zeros(16)}, "fc.bias belongs to nothing"),
        ({"fc.weight": torch.zeros(16, 32)}, r"fc.weight is \[16, 32\], the config says \[16, 48\]"),
        ({"d2t": torch.zeros(20)}, "d2t is torch.float32, must be torch.int64"),
        ({"d2t": torch.full((20,), 32)}, "outside the verifier's vocabulary"),
        ({"d2t": torch.full((20,), -30)}, "outside the verifier's vocabulary"),
        ({"d2t": -torch.arange(20)}, "two draft tokens to one"),
        ({"d2t": torch.zeros(20, dtype=torch.int64)}, "t2d does not mark"),
    ],
)
def test_tensors_that_do_not_fit_the_config_are_named(
    eagle3_config: Configs,
    tensors_of: Tensors,
    verifier: VerifierTensors,
    change: dict[str, Tensor | None],
    reason: str,
) -> None:
    tensors = {k: v for k, v in (tensors_of(eagle3_config()) | change).items() if v is not None}
    with pytest.raises(DraftError, match=reason):
        build_draft(eagle3_config(), tensors, verifier)


def test_all_that_is_wrong_is_said_at_once(
    eagle3_config: Configs, tensors_of: Tensors, verifier: VerifierTensors
) -> None:
    tensors = tensors_of(eagle3_config())
    tensors["spare"] = tensors.pop("norm.weight")
    with pytest.raises(ValueError, match=r"norm.weight is missing; spare belongs to nothing"):
        build_draft(eagle3_config(), tensors, verifier)


def test_a_verifier_that_is_needed_and_not_given_is_asked_for(
    eagle_config: Callable[..., EagleConfig], tensors_of: Tensors
) -> None:
    with pytest.raises(DraftError, match=r"shares its verifier's .* which was not given"):
        build_draft(eagle_config(), tensors_of(eagle_config()))


@pytest.mark.parametrize("which", ["embed_tokens", "lm_head"])
def test_a_verifier_of_another_size_is_refused(
    eagle_config: Callable[..., EagleConfig], tensors_of: Tensors, verifier: VerifierTensors, which: str
) -> None:
    tables = {"embed_tokens": verifier.embed_tokens, "lm_head": verifier.lm_head, which: torch.randn(32, 8)}
    with pytest.raises(DraftError, match=r"is \[32, 8\], the draft shares one of \[32, 16\]"):
        build_draft(eagle_config(), tensors_of(eagle_config()), VerifierTensors(**tables))


def test_a_draft_vocabulary_larger_than_the_verifiers_is_refused(
    eagle3_config: Configs, tensors_of: Tensors, verifier: VerifierTensors
) -> None:
    with pytest.raises(DraftError, match="draft_vocab_size 99 is larger"):
        build_draft(eagle3_config(draft_vocab_size=99), tensors_of(eagle3_config()), verifier)


@pytest.mark.parametrize(
    ("changes", "names", "expected"),
    [
        ({}, [], {"embed_tokens"}),
        ({}, ["embed_tokens.weight"], set()),
        ({"draft_vocab_size": 32}, [], {"embed_tokens", "lm_head"}),
        ({"draft_vocab_size": 32}, ["lm_head.weight"], {"embed_tokens"}),
    ],
)
def test_an_eagle3_draft_borrows_what_it_does_not_hold(
    eagle3_config: Configs, changes: dict[str, Any], names: list[str], expected: set[str]
) -> None:
    assert borrows(eagle3_config(**changes), names) == expected


def test_an_eagle_draft_always_borrows_the_head(eagle_config: Callable[..., EagleConfig]) -> None:
    assert borrows(eagle_config(), ["embed_tokens.weight", "lm_head.weight"]) == {"lm_head"}


def test_an_mlp_draft_borrows_nothing(mlp_config: Callable[..., EagleMlpConfig], tensors_of: Tensors) -> None:
    assert borrows(mlp_config(), tensors_of(mlp_config())) == frozenset()
