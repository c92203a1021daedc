"""The parallel unroll is a sequential rollout with a cache, row by row and step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spec_convert.models.cache import Cache
from spec_convert.models.contract import Draft
from spec_convert.training.batches.batch import Batch
from spec_convert.training.batches.loading import padded
from spec_convert.training.unrolling.unroll import unroll

from ..drawing import EAGLE, EAGLE3, SIZE, document, drawn_batch, drawn_draft

STEPS = 4
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "EAGLE-3": (EAGLE3, {}, {}),
    "EAGLE-3 of two layers": (EAGLE3, {"num_hidden_layers": 2}, {}),
    "EAGLE-3 of Qwen3 layers": (EAGLE3, {"model_type": "qwen3"}, {}),
    "EAGLE-3.1": (EAGLE3, {}, {"fc_norm": True, "norm_output": True}),
    "EAGLE-3, residual after the norm": (EAGLE3, {}, {"norm_before_residual": True}),
    "EAGLE-3 of another width than its verifier's": (EAGLE3, {}, {"target_hidden_size": 24, "norm_before_fc": True}),
    "EAGLE-1 and HASS": (EAGLE, {}, {}),
}


@pytest.fixture(params=KINDS)
def draft(request: pytest.FixtureRequest) -> Draft:
    fields, layer, changes = KINDS[request.param]
    return drawn_draft(fields, layer=layer, **changes)


@pytest.fixture
def batch(draft: Draft) -> Batch:
    return drawn_batch([7, 1, 5, 9], width=width_of(draft))


def test_every_row_is_what_a_draft_with_a_cache_computes(draft: Draft, batch: Batch) -> None:
    unrolled = in_parallel(draft, batch)
    for number, start in enumerate(batch.bounds[:-1]):
        alone = document(batch, number)
        for row in range(len(alone)):
            for step, state in enumerate(one_after_the_other(draft, alone, row)):
                torch.testing.assert_close(unrolled[step][start + row], state, rtol=1e-11, atol=1e-12)


def test_padding_changes_no_row(draft: Draft, batch: Batch) -> None:
    longer = in_parallel(draft, padded(batch, len(batch) + 6))
    for short, long in zip(in_parallel(draft, batch), longer, strict=True):
        # The last row of the text embeds whatever follows it; nothing that counts sees it.
        torch.testing.assert_close(long[: len(batch) - STEPS], short[:-STEPS], rtol=1e-12, atol=1e-12)


def test_rows_that_are_not_asked_for_change_none_that_are(draft: Draft, batch: Batch) -> None:
    rows = torch.tensor([1, 2, 8, 13, 15])
    some = unroll(draft, batch, batch.states, STEPS, rows=rows, detach=False)
    everything = in_parallel(draft, batch)
    for step in range(1, STEPS):
        torch.testing.assert_close(some[step].for_head, everything[step][rows], rtol=1e-12, atol=1e-12)


def test_the_gradient_flows_through_all_steps_unless_they_are_cut(draft: Draft, batch: Batch) -> None:
    reached = [bool(gradient_of_states(draft, batch, detach=detach).abs().sum() > 0) for detach in (False, True)]
    # With cut states the last step still reaches the first one's keys and values, which are of the verifier's states.
    assert reached == [True, True]
    whole, cut = (gradient_of_states(draft, batch, detach=detach) for detach in (False, True))
    assert not torch.allclose(whole, cut)


def in_parallel(draft: Draft, batch: Batch) -> list[Tensor]:
    rows = torch.arange(len(batch))
    return [step.for_head for step in unroll(draft, batch, batch.states, STEPS, rows=rows, detach=False)]


def one_after_the_other(draft: Draft, alone: Batch, row: int) -> list[Tensor]:
    """The states for the head of the chain at ``row``: prefill up to it, then the text's own tokens one by one."""
    cache, taken = Cache(), []
    fed = alone.states[: row + 1]
    for step in range(min(STEPS, len(alone) - 1 - row)):
        begin = 0 if step == 0 else row
        tokens = alone.input_ids[begin + 1 + step : row + 2 + step]
        positions = torch.arange(begin, row + 1) + step
        states = draft.states(tokens[None], fed[None], positions[None], fed_back=step > 0, attend=cache)
        taken.append(states.for_head[0, -1])
        fed = states.hidden_states[0, -1:]
    return taken


def gradient_of_states(draft: Draft, batch: Batch, *, detach: bool) -> Tensor:
    states = batch.states.clone().requires_grad_()
    chain = unroll(draft, batch, states, STEPS, rows=torch.arange(len(batch)), detach=detach)
    (gradient,) = torch.autograd.grad(chain[-1].for_head.square().sum(), states)
    return gradient


def width_of(draft: Draft) -> int:
    fc = draft.get_submodule("fc")
    return int(fc.in_features) - (SIZE if fc.in_features == 2 * SIZE else 0)
