"""A draft that decodes with a cache computes what it computes over the whole sequence at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from spec_convert.models.cache import Cache
from spec_convert.models.draft import Draft

ROWS = 9


@pytest.fixture(params=["eagle", "eagle3", "peagle"])
def drafted(request: pytest.FixtureRequest, draft_of: Callable[..., Draft]) -> tuple[Draft, Tensor, Tensor]:
    """A two-layer draft with tokens and verifier states to run on."""
    config: Any = request.getfixturevalue(f"{request.param}_config")(layer={"num_hidden_layers": 2})
    states = 1 if request.param == "eagle" else 3
    width = states * config.transformer_layer_config.hidden_size
    random = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 20, (1, ROWS), generator=random)
    return draft_of(config), ids, torch.randn(1, ROWS, width, generator=random)


@pytest.mark.parametrize("cuts", [(9,), (4, 5), (1,) * 9, (6, 1, 2)])
def test_a_sequence_in_pieces_gives_the_rows_of_the_whole(
    drafted: tuple[Draft, Tensor, Tensor], cuts: tuple[int, ...]
) -> None:
    draft, ids, states = drafted
    whole = draft(ids, states, fed_back=False)
    cache, done, pieces = Cache(), 0, []
    for rows in cuts:
        piece = slice(done, done + rows)
        positions = torch.arange(done, done + rows)[None]
        pieces.append(draft(ids[:, piece], states[:, piece], positions, fed_back=False, attend=cache).logits)
        done += rows
        assert cache.length == done
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole.logits)


def test_what_is_cropped_is_forgotten(drafted: tuple[Draft, Tensor, Tensor]) -> None:
    draft, ids, states = drafted
    whole = draft(ids, states, fed_back=False)
    cache = Cache()
    draft(ids[:, :5], states[:, :5], fed_back=False, attend=cache)
    draft(ids[:, :3], states[:, 2:5], torch.arange(5, 8)[None], fed_back=False, attend=cache)  # guesses, all wrong
    cache.crop(5)
    rest = draft(ids[:, 5:], states[:, 5:], torch.arange(5, 9)[None], fed_back=False, attend=cache)
    torch.testing.assert_close(rest.logits, whole.logits[:, 5:])
