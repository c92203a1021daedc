"""The parallel unroll of training-time test (arXiv 2503.01840) and of HASS (arXiv 2408.15766).

Both feed a draft its own states, all chains of a text at once. Row i starts beside the verifier's state of token i:

    step k embeds token i + 1 + k at position i + k, beside
        the verifier's state of token i     for k = 0
        its own state of step k - 1         for k > 0

HASS writes the same with states moved to the right by one a step, and cuts the gradient between steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spec_convert.models.contract import Draft
from spec_convert.training.batches.batch import Batch
from spec_convert.training.unrolling.attention import Chains
from spec_convert.training.unrolling.flex import FlexChains


class Step(NamedTuple):
    """What the chains of these rows computed at one step."""

    rows: Tensor  # [A] int64, ascending
    for_head: Tensor  # [A, H]
    hidden_states: Tensor  # [A, H]


def unroll(  # noqa: PLR0913  two of them tensors, the rest what each kind of training chooses
    draft: Draft, batch: Batch, states: Tensor, steps: int, *, rows: Tensor, detach: bool
) -> list[Step]:
    """``steps`` steps from ``states`` [S, n * Ht]. Steps after the first are computed for ``rows`` [A] alone.

    Where there are none, the first step is the only one.

    ``detach``: no gradient flows from a step to the one before it through the states that it is fed.
    """
    attend = (FlexChains if states.is_cuda else Chains)(batch.bounds, rows)

    def taken(fed: Tensor, rows: Tensor, step: int) -> Step:
        # Beyond the end of the text any token will do: rows that embed one are seen by none that counts.
        tokens = batch.input_ids[(rows + 1 + step).clamp(max=len(batch) - 1)]
        positions = batch.positions[rows] + step
        states = draft.states(tokens[None], fed[None], positions[None], fed_back=step > 0, attend=attend)
        return Step(rows, states.for_head[0], states.hidden_states[0])

    first = taken(states, torch.arange(len(batch), device=states.device), 0)
    chain, fed = [first], first.hidden_states[rows]
    for step in range(1, steps if len(rows) else 1):
        chain.append(taken(fed.detach() if detach else fed, rows, step))
        fed = chain[-1].hidden_states
    return chain
