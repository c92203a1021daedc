"""What is particular about the EAGLE draft."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from spec_convert.models.draft import Config, Draft
from spec_convert.unified import EagleConfig

Configs = Callable[..., EagleConfig]
Drafts = Callable[[Config], Draft]
IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
STATES = torch.linspace(-1, 1, 160).reshape(2, 5, 16)


def test_the_first_layer_alone_has_no_norm_before_attention(eagle_config: Configs, draft_of: Drafts) -> None:
    names = draft_of(eagle_config(layer={"num_hidden_layers": 3})).state_dict()
    norms = {name for name in names if name.endswith("input_layernorm.weight")}
    assert norms == {"layers.1.input_layernorm.weight", "layers.2.input_layernorm.weight"}


def test_the_checkpoint_does_not_hold_what_belongs_to_the_verifier(eagle_config: Configs, draft_of: Drafts) -> None:
    assert draft_of(eagle_config()).state_dict().keys() & {"embed_tokens.weight", "lm_head.weight"} == set()


def test_the_place_of_the_layernorms_names_the_tensors(eagle_config: Configs, draft_of: Drafts) -> None:
    before, after = (
        set(draft_of(eagle_config(layernorms=True, layernorm_position=place)).state_dict())
        for place in ("before_fusion", "after_fusion")
    )
    assert before ^ after == {"hidden_layernorm.weight", "layers.0.input_layernorm.weight"}


def test_states_of_a_wrong_width_are_refused(eagle_config: Configs, draft_of: Drafts) -> None:
    with pytest.raises(ValueError, match="are 48 wide, the draft takes 16"):
        draft_of(eagle_config())(IDS, torch.zeros(2, 5, 48))


def test_a_row_does_not_see_the_rows_after_it(eagle_config: Configs, draft_of: Drafts) -> None:
    draft = draft_of(eagle_config())
    torch.testing.assert_close(draft(IDS, STATES).logits[:, :3], draft(IDS[:, :3], STATES[:, :3]).logits)


def test_without_positions_a_sequence_starts_at_zero(eagle_config: Configs, draft_of: Drafts) -> None:
    draft = draft_of(eagle_config())
    torch.testing.assert_close(draft(IDS, STATES).logits, draft(IDS, STATES, torch.arange(5)[None]).logits)


def test_only_the_distance_between_positions_matters(eagle_config: Configs, draft_of: Drafts) -> None:
    draft = draft_of(eagle_config())
    torch.testing.assert_close(draft(IDS, STATES).logits, draft(IDS, STATES, torch.arange(5)[None] + 17).logits)


def test_gradients_reach_every_parameter_and_not_the_verifier(eagle_config: Configs, draft_of: Drafts) -> None:
    draft = draft_of(eagle_config(fusion_bias=True, layernorms=True, layernorm_position="before_fusion")).train()
    draft(IDS, STATES).logits.logsumexp(-1).sum().backward()
    gradients = {name: parameter.grad for name, parameter in draft.named_parameters()}
    assert {name for name, gradient in gradients.items() if gradient is None or not gradient.any()} == set()
    assert all(not buffer.requires_grad for buffer in draft.buffers())


def test_the_verifiers_tables_follow_the_draft_to_another_dtype(eagle_config: Configs, draft_of: Drafts) -> None:
    logits: Tensor = draft_of(eagle_config()).to(torch.bfloat16)(IDS, STATES.bfloat16()).logits
    assert logits.dtype == torch.bfloat16


def test_rounding_the_weights_does_not_round_the_positions(eagle_config: Configs, draft_of: Drafts) -> None:
    exact, rounded = draft_of(eagle_config()), draft_of(eagle_config()).to(torch.bfloat16)
    far = torch.tensor([[50_000]])
    for ours, theirs in zip(rounded.rope(far), exact.rope(far), strict=True):
        assert torch.equal(ours, theirs)
