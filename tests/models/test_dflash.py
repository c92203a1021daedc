"""The DFlash and DSpark drafts against their formulas, written out in float64, and what their rows may look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from spec_convert.models.cache import Cache
from spec_convert.models.dflash import DFlashDraft
from spec_convert.models.draft import Config, Draft, build_draft
from spec_convert.models.dspark import DSparkDraft
from spec_convert.unified import UNIFIED, DFlashConfig, DSparkConfig

from .conftest import ENVELOPE, LAYER
from .test_peagle import rms

Tensors = Callable[[Config], dict[str, Tensor]]
IDS = torch.tensor([3, 1, 4, 1, 5])
STATES = torch.linspace(-2, 1, 240, dtype=torch.float64).reshape(5, 48)
MASK, HEAD_DIM, THETA, TOKENS = 7, 4, 10000.0, 3
FULL, SLIDING = "full_attention", "sliding_attention"
OWN: dict[str, Any] = {
    "speculators_model_type": "dflash", "draft_vocab_size": 20, "block_size": 4, "target_hidden_size": None,
    "aux_hidden_state_layer_ids": [1, 2, 3], "mask_token_id": MASK, "sliding_window_non_causal": True,
    "sample_from_anchor": False,
}  # fmt: skip
HEADS = {
    "speculators_model_type": "dspark", "markov_rank": 5, "markov_head_type": "vanilla", "enable_confidence_head": True,
    "confidence_head_with_markov": True,
}  # fmt: skip


def config_of(*, types: tuple[str, ...] = (FULL, FULL), window: int | None = None, **changes: Any) -> Any:
    shape = {"model_type": "qwen3", "num_hidden_layers": 2, "layer_types": list(types), "sliding_window": window}
    return UNIFIED.validate_python(ENVELOPE | OWN | {"transformer_layer_config": LAYER | shape} | changes)


@pytest.fixture
def exact(tensors_of: Tensors, verifier: Any) -> Callable[..., tuple[Any, dict[str, Tensor]]]:
    """`exact(config)` is a draft in float64 and its tensors, its embedding among them."""

    def make(config: Config) -> tuple[Any, dict[str, Tensor]]:
        tensors = tensors_of(config) | {"embed_tokens.weight": verifier.embed_tokens}
        tensors = {name: each.double() if each.is_floating_point() else each for name, each in tensors.items()}
        return build_draft(config, tensors), tensors

    return make


def written_out(weights: Mapping[str, Tensor], config: Any, rows: int) -> Tensor:
    """The rows of one block behind all states [rows, H], from the formulas: no module of ours."""
    context = rms(STATES @ weights["fc.weight"].T, weights["hidden_norm.weight"])
    x = weights["embed_tokens.weight"][torch.tensor([int(IDS[-1])] + [MASK] * (rows - 1))]
    known, places = torch.arange(5), 5 + torch.arange(rows)
    seen = torch.cat((known, places))
    layer_config = config.transformer_layer_config
    for number, kind in enumerate(layer_config.layer_types):
        layer = {name.removeprefix(f"layers.{number}."): tensor for name, tensor in weights.items()}
        normed = rms(x, layer["input_layernorm.weight"])

        def heads(of: Tensor, name: str, layer: dict[str, Tensor] = layer) -> Tensor:
            return (of @ layer[f"self_attn.{name}_proj.weight"].T).unflatten(-1, (-1, HEAD_DIM)).transpose(0, 1)

        query = turned(rms(heads(normed, "q"), layer["self_attn.q_norm.weight"]), places)
        both = torch.cat((context, normed))
        key = turned(rms(heads(both, "k"), layer["self_attn.k_norm.weight"]), seen).repeat_interleave(2, dim=0)
        value = heads(both, "v").repeat_interleave(2, dim=0)
        scores = query @ key.mT / math.sqrt(HEAD_DIM)
        if kind == SLIDING:
            distance = places[:, None] - seen
            hidden = distance.abs() >= layer_config.sliding_window
            hidden |= (distance < 0) & (not config.sliding_window_non_causal)
            scores = scores.masked_fill(hidden, -math.inf)
        mixed = (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)
        x = x + mixed @ layer["self_attn.o_proj.weight"].T
        inner = rms(x, layer["post_attention_layernorm.weight"])
        gate, up = (inner @ layer[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (gate / (1 + (-gate).exp()) * up) @ layer["mlp.down_proj.weight"].T
    return rms(x, weights["norm.weight"])


def turned(heads: Tensor, places: Tensor) -> Tensor:
    turns = THETA ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
    angle = (places[:, None] * turns).repeat(1, 2)
    one, other = heads.chunk(2, dim=-1)
    return heads * angle.cos() + torch.cat((-other, one), dim=-1) * angle.sin()


def stepped(draft: Draft, given: list[int], attend: Any = None) -> Tensor:
    """The logits of each guess [K, Vd]: of the last row, then one step for each token of ``given``."""
    more = {} if attend is None else {"attend": attend}
    made = draft(IDS[None], STATES[None], fed_back=False, **more)
    logits = [made.logits[0, -1]]
    for token in given:
        made = draft(torch.tensor([[token]]), made.hidden_states[:, -1:], fed_back=True, **more)
        logits.append(made.logits[0, -1])
    return torch.stack(logits)


WINDOWS = [
    {},
    {"types": (SLIDING, FULL), "window": 3},
    {"types": (SLIDING, SLIDING), "window": 3, "sliding_window_non_causal": False},
    {"types": (FULL, SLIDING), "window": 7, "sliding_window_non_causal": False},
]


@pytest.mark.parametrize("windows", WINDOWS, ids=str)
def test_guesses_are_what_is_written_out(exact: Any, windows: dict[str, Any]) -> None:
    draft, tensors = exact(config := config_of(**windows))
    expected = written_out(tensors, config, rows=1 + TOKENS)[1:] @ tensors["lm_head.weight"].T
    torch.testing.assert_close(stepped(draft, [0, 0]), expected)
    torch.testing.assert_close(stepped(draft, [0, 0], Cache()), expected)


@pytest.mark.parametrize("anchored", [True, False])
def test_dspark_adds_a_bias_of_the_token_before(exact: Any, anchored: bool) -> None:
    draft, tensors = exact(config := config_of(**HEADS, sample_from_anchor=anchored))
    rows = written_out(tensors, config, rows=TOKENS if anchored else 1 + TOKENS)[-TOKENS:]
    before = torch.tensor([int(IDS[-1]), 9, 30])
    bias = tensors["markov_head.markov_w1.weight"][before] @ tensors["markov_head.markov_w2.weight"].T
    torch.testing.assert_close(stepped(draft, [9, 30]), rows @ tensors["lm_head.weight"].T + bias)
    both = torch.cat((rows, tensors["markov_head.markov_w1.weight"][before]), dim=-1)
    sure = both @ tensors["confidence_head.proj.weight"][0] + tensors["confidence_head.proj.bias"]
    torch.testing.assert_close(draft.confidence(rows, before), 1 / (1 + (-sure).exp()))


def test_a_confidence_head_may_read_the_row_alone(exact: Any) -> None:
    draft, tensors = exact(config_of(**HEADS | {"confidence_head_with_markov": False}))
    rows = torch.randn(2, 16, dtype=torch.float64)
    sure = rows @ tensors["confidence_head.proj.weight"][0] + tensors["confidence_head.proj.bias"]
    torch.testing.assert_close(draft.confidence(rows, IDS[:2]), sure.sigmoid())


def test_every_row_stands_for_a_block_of_its_own(exact: Any) -> None:
    """Row i of a whole text answers what the last row of the text up to there answers."""
    draft, _ = exact(config_of())
    whole = draft(IDS[None], STATES[None], fed_back=False)
    for length in range(1, 6):
        alone = draft(IDS[None, :length], STATES[None, :length], fed_back=False)
        torch.testing.assert_close(whole.logits[:, length - 1], alone.logits[:, -1])
        torch.testing.assert_close(whole.hidden_states[:, length - 1], alone.hidden_states[:, -1])


def test_texts_side_by_side_do_not_see_each_other(exact: Any) -> None:
    draft, _ = exact(config_of())
    ids, states = torch.stack((IDS, IDS.flip(0))), torch.stack((STATES, STATES.flip(0)))
    both = draft(ids, states, fed_back=False).logits
    torch.testing.assert_close(both[1:], draft(ids[1:], states[1:], fed_back=False).logits)


def test_reading_piece_by_piece_is_reading_at_once(exact: Any) -> None:
    draft, cache = exact(config_of(types=(SLIDING, FULL), window=3))[0], Cache()
    whole = draft(IDS[None], STATES[None], fed_back=False)
    draft(IDS[None, :2], STATES[None, :2], fed_back=False, attend=cache)
    rest = draft(IDS[None, 2:], STATES[None, 2:], torch.arange(2, 5)[None], fed_back=False, attend=cache)
    torch.testing.assert_close(rest.logits, whole.logits[:, 2:])
    assert cache.length == 5


def test_a_block_has_as_many_masks_as_tokens_are_wanted(exact: Any) -> None:
    draft, tensors = exact(config := config_of())
    draft.expect(1)
    expected = written_out(tensors, config, rows=2)[1:] @ tensors["lm_head.weight"].T
    torch.testing.assert_close(stepped(draft, []), expected)
    with pytest.raises(ValueError, match="all 1 guesses of the block are taken"):
        stepped(draft, [0])


def test_attention_that_is_neither_whole_nor_a_cache_is_refused(exact: Any) -> None:
    with pytest.raises(ValueError, match="through a cache or all at once"):
        stepped(exact(config_of())[0], [], lambda *_: None)


def test_they_are_built_of_their_configs(exact: Any) -> None:
    assert type(exact(config_of())[0]) is DFlashDraft
    assert isinstance(config_of(), DFlashConfig)
    assert isinstance(exact(config_of(**HEADS))[0], DSparkDraft)
    assert isinstance(config_of(**HEADS), DSparkConfig)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sample_from_anchor": True}, "sample_from_anchor"),
        ({"mask_token_id": 32}, "not in the vocabulary of 32"),
        ({"aux_hidden_state_layer_ids": [2, 1]}, "not strictly increasing"),
        ({"aux_hidden_state_layer_ids": [0, 1]}, "greater than 0"),
        ({"aux_hidden_state_layer_ids": []}, "not strictly increasing"),
        ({"types": (FULL,)}, "1 layer_types for 2 layers"),
        ({"types": (FULL, SLIDING)}, "exactly when"),
        ({"window": 4}, "exactly when"),
        (HEADS | {"markov_head_type": "rnn"}, "vanilla"),
        (HEADS | {"enable_confidence_head": False}, "a head reads that is not there"),
    ],
    ids=str,
)
def test_what_no_server_would_compute_is_no_config(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        config_of(**changes)
