"""The P-EAGLE draft against its formulas, written out in float64, and what its rows may and may not look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from spec_convert.models.cache import Cache
from spec_convert.models.draft import Config, Draft, build_draft
from spec_convert.models.peagle import PEagleDraft
from spec_convert.unified import PEagleConfig

Configs = Callable[..., PEagleConfig]
Drafts = Callable[[Config], Draft]
Tensors = Callable[[Config], dict[str, Tensor]]
IDS = torch.tensor([3, 1, 4, 1, 5])
STATES = torch.linspace(-2, 1, 240, dtype=torch.float64).reshape(5, 48)
MASK, HEAD_DIM, THETA, EPSILON = 7, 4, 10000.0, 1e-5


def written_out(weights: Mapping[str, Tensor], embedding: Tensor, masks: int, layers: int) -> Tensor:
    """Logits [5 + masks, Vd] in one pass, from the paper and the formulas of EAGLE-3: no module of ours."""
    ids = torch.cat((IDS, torch.full((masks,), MASK)))
    given = torch.cat((STATES, weights["mask_hidden"][0].expand(masks, -1)))
    fused = given @ weights["fc.weight"].T
    cosine, sine = angles(len(ids))
    x = fused
    for number in range(layers):
        layer = {name.removeprefix(f"layers.{number}."): tensor for name, tensor in weights.items()}
        normed = rms(x, layer["hidden_norm.weight" if number == 0 else "input_layernorm.weight"])
        if number == 0:
            normed = torch.cat((rms(embedding[ids], layer["input_layernorm.weight"]), normed), dim=-1)
        query, key, value = (
            (normed @ layer[f"self_attn.{name}_proj.weight"].T).unflatten(-1, (-1, HEAD_DIM)).transpose(0, 1)
            for name in "qkv"
        )
        query, key = (turned(heads, cosine, sine) for heads in (query, key))
        key, value = (heads.repeat_interleave(len(query) // len(heads), dim=0) for heads in (key, value))
        scores = query @ key.mT / math.sqrt(HEAD_DIM)
        scores = scores.masked_fill(torch.ones(len(ids), len(ids)).triu(1).bool(), -math.inf)
        mixed = (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)
        x = x + mixed @ layer["self_attn.o_proj.weight"].T
        inner = rms(x, layer["post_attention_layernorm.weight"])
        gate, up = (inner @ layer[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (gate / (1 + (-gate).exp()) * up) @ layer["mlp.down_proj.weight"].T
    return rms(x, weights["norm.weight"]) @ weights["lm_head.weight"].T


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt() * weight


def angles(rows: int) -> tuple[Tensor, Tensor]:
    turns = THETA ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
    angle = torch.arange(rows)[:, None] * turns
    return angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)


def turned(heads: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    one, other = heads.chunk(2, dim=-1)
    return heads * cosine + torch.cat((-other, one), dim=-1) * sine


@pytest.fixture
def exact(peagle_config: Configs, tensors_of: Tensors, verifier: Any) -> tuple[PEagleDraft, dict[str, Tensor], Tensor]:
    """A draft in float64, its tensors and its embedding."""
    tensors = {name: each.double() if each.is_floating_point() else each for name, each in
               tensors_of(peagle_config()).items()}  # fmt: skip
    tensors["embed_tokens.weight"] = embedding = verifier.embed_tokens.double()
    draft = build_draft(peagle_config(), tensors)
    assert isinstance(draft, PEagleDraft)
    return draft, tensors, embedding


def test_masked_rows_compute_what_is_written_out(exact: tuple[PEagleDraft, dict[str, Tensor], Tensor]) -> None:
    """One call with all rows, masked ones by their token and state, is the formula; so is one step after the other."""
    draft, tensors, embedding = exact
    expected = written_out(tensors, embedding, masks=3, layers=2)
    ids = torch.cat((IDS, torch.full((3,), MASK)))
    given = torch.cat((STATES, draft.mask_hidden[0].expand(3, -1)))
    torch.testing.assert_close(draft(ids[None], given[None], fed_back=False).logits[0], expected)

    cache = Cache()
    made = draft(IDS[None], STATES[None], fed_back=False, attend=cache)
    rows = [made.logits[0]]
    for step in range(3):
        anything = torch.full((1, 1), step)
        made = draft(anything, made.hidden_states[:, -1:], torch.tensor([[5 + step]]), fed_back=True, attend=cache)
        rows.append(made.logits[0])
    torch.testing.assert_close(torch.cat(rows), expected)


def test_a_masked_row_ignores_the_token_and_the_state_that_it_is_given(
    peagle_config: Configs, draft_of: Drafts
) -> None:
    draft = draft_of(peagle_config())
    one = draft(IDS[None], torch.randn(1, 5, 16), fed_back=True).logits
    assert torch.equal(one, draft(IDS[None].flip(1), torch.randn(1, 5, 16), fed_back=True).logits)
    assert not torch.equal(one[:, 0], draft(IDS[None], STATES[None].float()).logits[:, 0])


def test_the_mask_is_fused_through_the_norm_before_fc(peagle_config: Configs, draft_of: Drafts) -> None:
    """Servers put `mask_hidden` through all that a verifier's state goes through."""
    draft = draft_of(peagle_config(norm_before_fc=True))
    assert isinstance(draft, PEagleDraft)
    given = draft(torch.full((1, 2), MASK), draft.mask_hidden.expand(1, 2, -1), fed_back=False)
    torch.testing.assert_close(draft(IDS[None, :2], torch.zeros(1, 2, 16), fed_back=True).logits, given.logits)


def test_gradients_of_masked_rows_reach_the_mask_and_its_embedding(
    peagle_config: Configs, tensors_of: Tensors, verifier: Any
) -> None:
    tensors = tensors_of(peagle_config()) | {"embed_tokens.weight": verifier.embed_tokens.clone()}
    draft = build_draft(peagle_config(), tensors).train()
    draft(IDS[None], torch.zeros(1, 5, 16), fed_back=True).logits.logsumexp(-1).sum().backward()
    assert draft.get_parameter("mask_hidden").grad.any()
    touched = draft.get_parameter("embed_tokens.weight").grad.abs().sum(dim=-1).nonzero()[:, 0].tolist()
    assert touched == [MASK]


@pytest.mark.parametrize(
    "changes", [{"fc_norm": True}, {"norm_output": True}, {"mask_token_id": 32}, {"mask_token_id": -1}], ids=str
)
def test_what_no_server_would_compute_is_no_config(peagle_config: Configs, changes: dict[str, Any]) -> None:
    fields = peagle_config().model_dump()
    with pytest.raises(ValidationError, match=next(iter(changes))):
        PEagleConfig.model_validate(fields | changes)
