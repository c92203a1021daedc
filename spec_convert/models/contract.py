"""What every draft is: tokens and the verifier's states in, logits and the state for the next step out."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spec_convert.models.errors import DraftError
from spec_convert.models.layers import Attend, causal


class DraftStates(NamedTuple):
    """A draft step without its head, which is most of the work: training reads the logits of some rows only."""

    for_head: Tensor  # [B, T, H], what the head reads: normed where the draft has a final norm
    hidden_states: Tensor  # [B, T, H], to be fed to the next step


class DraftOutput(NamedTuple):
    """A tuple and no dataclass: torch's wrappers (FSDP, compile) look for tensors inside tuples only."""

    logits: Tensor  # [B, T, V], or [B, T, Vd] when the draft has a vocabulary of its own
    hidden_states: Tensor  # [B, T, H], to be fed to the next step


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierTensors:
    """What a draft may share with its verifier. None: not at hand, and refused when the draft needs it."""

    embed_tokens: Tensor | None
    lm_head: Tensor | None


class Borrowed(nn.Module):
    """A weight of the verifier: it moves with the draft, but is not trained and not in the draft's checkpoint."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)


class Draft(nn.Module):
    """A draft. Parameters are named as in the unified checkpoint: `state_dict()` is the checkpoint."""

    lm_head: nn.Module

    @abstractmethod
    def states(
        self,
        input_ids: Tensor,
        hidden_states: Tensor,
        position_ids: Tensor | None = None,
        *,
        fed_back: bool | None = None,
        attend: Attend = causal,
    ) -> DraftStates:
        """`forward` without the head."""

    def forward(
        self,
        input_ids: Tensor,
        hidden_states: Tensor,
        position_ids: Tensor | None = None,
        *,
        fed_back: bool | None = None,
        attend: Attend = causal,
    ) -> DraftOutput:
        """One draft step over all positions: row i guesses the token after ``input_ids[:, i]``.

        ``hidden_states`` are the verifier's (first step) or this draft's own output (later steps). Where the width
        does not tell them apart, ``fed_back`` must. ``attend`` replaces plain causal attention, see `layers.Attend`.
        """
        states = self.states(input_ids, hidden_states, position_ids, fed_back=fed_back, attend=attend)
        return DraftOutput(F.linear(states.for_head, self.head), states.hidden_states)

    @property
    def head(self) -> Tensor:
        """[V, H] or [Vd, H]: the weight of the head, the draft's own or the verifier's."""
        weight = self.lm_head.weight
        assert isinstance(weight, Tensor)
        return weight

    if TYPE_CHECKING:

        def __call__(
            self,
            input_ids: Tensor,
            hidden_states: Tensor,
            position_ids: Tensor | None = None,
            *,
            fed_back: bool | None = None,
            attend: Attend = causal,
        ) -> DraftOutput: ...

    def expect(self, tokens: int) -> None:
        """How many tokens one pass of the verifier is to check: a word for drafts that guess all of them at once."""

    def kept_tokens(self) -> Tensor | None:
        """[Vd] int64: the verifier's id of each token that the draft can say; None: all of the verifier's."""
        return None

    def to_target_vocabulary(self, logits: Tensor) -> Tensor:
        """Logits over the verifier's vocabulary, [B, T, V]: -inf for tokens that the draft cannot say."""
        return logits


def table(rows: int, width: int, borrowed: Tensor | None, *, name: str) -> nn.Embedding | Borrowed:
    """A table with one row a token: the draft's own, to be filled, or the verifier's."""
    if borrowed is None:
        return nn.Embedding(rows, width)
    if borrowed.shape != (rows, width):
        raise DraftError(
            f"the verifier's {name} is {list(borrowed.shape)}, the draft shares one of [{rows}, {width}]",
            hint="name the model that the draft was trained for: --verifier BASE",
        )
    return Borrowed(borrowed)


def positions(input_ids: Tensor, position_ids: Tensor | None) -> Tensor:
    """The given positions, or 0, 1, 2, … for a whole sequence."""
    if position_ids is not None:
        return position_ids
    return torch.arange(input_ids.shape[1], device=input_ids.device)[None]
