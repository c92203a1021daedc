"""What each switch of the EAGLE-3 draft does, and which states it takes for whose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spec_convert.models.contract import VerifierTensors
from spec_convert.models.draft import Config, Draft, build_draft
from spec_convert.models.layers import DecoderLayer, causal
from spec_convert.models.rope import Rope
from spec_convert.unified import Eagle3Config

Configs = Callable[..., Eagle3Config]
Drafts = Callable[[Config], Draft]
IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
STATES = torch.linspace(-2, 1, 480).reshape(2, 5, 48)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, 1e-5)


@pytest.mark.parametrize("switched", [False, True])
def test_norm_before_residual_puts_the_normed_state_into_the_residual(
    eagle3_config: Configs, draft_of: Drafts, switched: bool
) -> None:
    draft = draft_of(eagle3_config(norm_before_residual=switched))
    for silent in ("layers.0.self_attn.o_proj", "layers.0.mlp.down_proj"):
        torch.nn.init.zeros_(draft.get_parameter(f"{silent}.weight"))
    state = F.linear(STATES, draft.fc.weight)
    expected = rms(state, draft.layers[0].hidden_norm.weight) if switched else state
    torch.testing.assert_close(draft(IDS, STATES).hidden_states, expected)


def test_norm_output_feeds_the_normed_state_to_the_next_step(eagle3_config: Configs, draft_of: Drafts) -> None:
    raw, normed = (draft_of(eagle3_config(norm_output=switched)) for switched in (False, True))
    torch.testing.assert_close(normed(IDS, STATES).hidden_states, rms(raw(IDS, STATES).hidden_states, raw.norm.weight))


def test_norm_output_leaves_the_logits_alone(eagle3_config: Configs, draft_of: Drafts) -> None:
    raw, normed = (draft_of(eagle3_config(norm_output=switched)) for switched in (False, True))
    assert torch.equal(raw(IDS, STATES).logits, normed(IDS, STATES).logits)


def test_norm_before_fc_norms_all_states_together(
    eagle3_config: Configs, tensors_of: Callable[[Config], dict[str, Tensor]], verifier: VerifierTensors
) -> None:
    tensors = tensors_of(eagle3_config(norm_before_fc=True))
    draft = build_draft(eagle3_config(norm_before_fc=True), tensors, verifier)
    weight = tensors.pop("input_norm.weight")
    plain = build_draft(eagle3_config(), tensors, verifier)
    torch.testing.assert_close(draft(IDS, STATES).logits, plain(IDS, rms(STATES, weight)).logits)


def test_fc_norm_norms_each_state_by_itself(
    eagle3_config: Configs, tensors_of: Callable[[Config], dict[str, Tensor]], verifier: VerifierTensors
) -> None:
    tensors = tensors_of(eagle3_config(fc_norm=True))
    draft = build_draft(eagle3_config(fc_norm=True), tensors, verifier)
    weights = [tensors.pop(f"fc_norm.{index}.weight") for index in range(3)]
    plain = build_draft(eagle3_config(), tensors, verifier)
    parts = [rms(part, weight) for part, weight in zip(STATES.chunk(3, dim=-1), weights, strict=True)]
    torch.testing.assert_close(draft(IDS, STATES).logits, plain(IDS, torch.cat(parts, dim=-1)).logits)


def test_later_layers_are_plain_decoder_layers(
    eagle3_config: Configs, tensors_of: Callable[[Config], dict[str, Tensor]], verifier: VerifierTensors
) -> None:
    deep = eagle3_config(layer={"num_hidden_layers": 2})
    tensors = tensors_of(deep)
    expected = build_draft(deep, tensors, verifier)(IDS, STATES).hidden_states
    second = DecoderLayer(deep.transformer_layer_config, 1, input_norm=True)
    prefix = "layers.1."
    second.load_state_dict({k.removeprefix(prefix): tensors.pop(k) for k in list(tensors) if k.startswith(prefix)})
    first = build_draft(eagle3_config(), tensors, verifier)(IDS, STATES).hidden_states
    rotation = Rope.of(deep.transformer_layer_config)(torch.arange(5)[None])
    torch.testing.assert_close(second(first, rotation, causal), expected)


@pytest.mark.parametrize(
    "changes",
    [
        {"aux": 1, "target_hidden_size": 40},
        {"aux": 4},
        {"target_hidden_size": 24},
        {"layer": {"model_type": "qwen3", "head_dim": 8, "num_hidden_layers": 2}},
        {"layer": {"attention_bias": True, "mlp_bias": True}},
    ],
    ids=str,
)
def test_every_shape_of_draft_runs_two_steps(eagle3_config: Configs, draft_of: Drafts, changes: dict[str, Any]) -> None:
    draft = draft_of(eagle3_config(**changes))
    first = draft(IDS, torch.randn(2, 5, draft.fc.in_features))
    assert draft(IDS, first.hidden_states).logits.shape == (2, 5, 20)


def test_its_own_state_passes_by_the_fusion(eagle3_config: Configs, draft_of: Drafts) -> None:
    draft = draft_of(eagle3_config())
    torch.testing.assert_close(draft(IDS, draft.fuse(STATES)).logits, draft(IDS, STATES).logits)


def test_one_state_as_wide_as_the_draft_must_be_said_to_be_whose(eagle3_config: Configs, draft_of: Drafts) -> None:
    with pytest.raises(ValueError, match="say fed_back"):
        draft_of(eagle3_config(aux=1))(IDS, STATES[..., :16])


def test_saying_whose_state_it_is_decides(eagle3_config: Configs, draft_of: Drafts) -> None:
    draft, state = draft_of(eagle3_config(aux=1)), STATES[..., :16]
    torch.testing.assert_close(
        draft(IDS, state, fed_back=False).logits, draft(IDS, draft.fuse(state), fed_back=True).logits
    )


@pytest.mark.parametrize(
    ("width", "said", "reason"), [(17, None, "17 wide: neither"), (48, True, "contradicts"), (16, False, "contradicts")]
)
def test_states_of_a_wrong_width_are_refused(
    eagle3_config: Configs, draft_of: Drafts, width: int, said: bool | None, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        draft_of(eagle3_config())(IDS, torch.randn(2, 5, width), fed_back=said)


def test_logits_go_to_the_tokens_that_the_offsets_point_to(eagle3_config: Configs, draft_of: Drafts) -> None:
    draft = draft_of(eagle3_config())
    logits = draft(IDS, STATES).logits
    everywhere = draft.to_target_vocabulary(logits)
    for own, offset in enumerate(draft.d2t.tolist()):
        assert torch.equal(everywhere[..., own + offset], logits[..., own])


def test_a_token_outside_the_draft_vocabulary_is_impossible(eagle3_config: Configs, draft_of: Drafts) -> None:
    draft = draft_of(eagle3_config())
    everywhere = draft.to_target_vocabulary(draft(IDS, STATES).logits)
    assert everywhere[..., ~draft.t2d].eq(float("-inf")).all()


def test_a_full_vocabulary_needs_no_map(eagle3_config: Configs, draft_of: Drafts) -> None:
    draft = draft_of(eagle3_config(draft_vocab_size=32))
    logits = draft(IDS, STATES).logits
    assert draft.to_target_vocabulary(logits) is logits
    assert not {"d2t", "t2d", "lm_head.weight"} & draft.state_dict().keys()


def test_gradients_flow_through_two_steps_to_every_parameter(eagle3_config: Configs, draft_of: Drafts) -> None:
    draft = draft_of(eagle3_config(fc_norm=True, layer={"num_hidden_layers": 2, "model_type": "qwen3"})).train()
    second = draft(IDS, draft(IDS, STATES).hidden_states)
    draft.to_target_vocabulary(second.logits).logsumexp(-1).sum().backward()
    silent = {name for name, each in draft.named_parameters() if each.grad is None or not each.grad.any()}
    assert silent == set()
