"""The MLP draft knows the last token and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import torch

from spec_convert.models.draft import Config, Draft
from spec_convert.unified import EagleMlpConfig

Configs = Callable[..., EagleMlpConfig]
Drafts = Callable[[Config], Draft]
IDS = torch.tensor([[3, 1, 4, 1, 5]])


def test_the_same_token_gets_the_same_guess_wherever_it_stands(mlp_config: Configs, draft_of: Drafts) -> None:
    logits = draft_of(mlp_config())(IDS, torch.randn(1, 5, 16)).logits
    assert torch.equal(logits[:, 1], logits[:, 3])


def test_the_states_of_the_verifier_do_not_matter(mlp_config: Configs, draft_of: Drafts) -> None:
    draft = draft_of(mlp_config())
    assert torch.equal(draft(IDS, torch.randn(1, 5, 16)).logits, draft(IDS, torch.zeros(1, 5, 16)).logits)


def test_linear_and_norm_are_numbered_by_three(mlp_config: Configs, draft_of: Drafts) -> None:
    names = {name for name in draft_of(mlp_config()).state_dict() if name.startswith("mlp.")}
    assert names == {f"mlp.{index}.{kind}" for index in (0, 2, 3, 5) for kind in ("weight", "bias")}


def test_gradients_reach_every_parameter(mlp_config: Configs, draft_of: Drafts) -> None:
    draft = draft_of(mlp_config()).train()
    draft(IDS, torch.zeros(1, 5, 16)).logits.logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None for parameter in draft.parameters())
