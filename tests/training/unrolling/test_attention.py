"""The tiled attention of chains against plain attention with a mask drawn row by row, and against its own gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spec_convert.training.unrolling import attention
from spec_convert.training.unrolling.attention import Chains

BOUNDS, HEADS, KV, WIDTH = (0, 5, 6, 13), 4, 2, 8
ROWS = torch.tensor([0, 3, 4, 6, 7, 11])


@pytest.fixture(autouse=True, params=[2, 512])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "TILE", request.param)


def heads(number: int, rows: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(1, number, rows, WIDTH, dtype=torch.float64, generator=random).requires_grad_()


def inputs(steps: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Query, key and value of each step: all rows at the first, some at the later ones."""
    rows = [BOUNDS[-1], *[len(ROWS)] * (steps - 1)]
    return [(heads(HEADS, n, 3 * k), heads(KV, n, 3 * k + 1), heads(KV, n, 3 * k + 2)) for k, n in enumerate(rows)]


def expected(steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """The last step by the rule: keys of step 0 up to the row, in its document, and its own of the later steps."""
    query = steps[-1][0]
    rows = torch.arange(BOUNDS[-1]) if len(steps) == 1 else ROWS
    document = torch.bucketize(torch.arange(BOUNDS[-1]), torch.tensor(BOUNDS[1:-1]), right=True)
    first = torch.tensor([[i >= j and bool(document[i] == document[j]) for j in range(BOUNDS[-1])] for i in rows])
    own = torch.eye(len(rows), dtype=torch.bool)
    mask = torch.cat([first, *[own] * (len(steps) - 1)], dim=1)
    keys, values = (torch.cat([step[part] for step in steps], dim=2) for part in (1, 2))
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, enable_gqa=True)


def computed(steps: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    attend = Chains(BOUNDS, ROWS)
    return [attend(0, *step) for step in steps][-1]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_it_is_attention_with_the_mask_of_chains(steps: int) -> None:
    given = inputs(steps)
    torch.testing.assert_close(computed(given), expected(given), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_so_are_its_gradients(steps: int) -> None:
    given = inputs(steps)
    wanted = torch.randn_like(expected(given))
    # Queries of the earlier steps do not enter the last one.
    leaves = [steps_query_key_value[part] for steps_query_key_value in given for part in (1, 2)] + [given[-1][0]]
    found = torch.autograd.grad(computed(given), leaves, wanted)
    for one, other in zip(found, torch.autograd.grad(expected(given), leaves, wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_every_row_of_a_chain_sees_as_many_keys_as_its_position_says() -> None:
    """HASS: row i of step t, counted from the text's start, sees i + 1 keys; with equal scores each counts the same."""
    attend = Chains(BOUNDS, ROWS)
    for step in range(3):
        rows = torch.arange(BOUNDS[-1]) if step == 0 else ROWS
        ones = torch.ones(1, KV, len(rows), WIDTH, dtype=torch.float64)
        marked = ones.clone()
        marked[..., 0] = float(step == 0)  # the share of the first step's keys
        share = attend(0, torch.ones(1, HEADS, len(rows), WIDTH, dtype=torch.float64), ones, marked)[0, :, :, 0]
        starts = torch.tensor([max(b for b in BOUNDS if b <= int(row)) for row in rows])
        within = rows - starts + 1
        torch.testing.assert_close(share, (within / (within + step)).double().expand(HEADS, -1))
