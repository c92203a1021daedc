"""The drafting side of speculative decoding: from the verifier's states to the next K tokens."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from spec_convert.evaluation.acceptance import Proposal, Strategy, require_numbers
from spec_convert.models.cache import Cache
from spec_convert.models.contract import Draft, DraftOutput

# Rows of a prompt that the draft reads at once: it gives logits for each, which would fill the memory of a long one.
ROWS = 256


class Drafter(Protocol):
    """Whoever proposes tokens. One that proposes none leaves the verifier to decode alone."""

    def restart(self) -> None:
        """Forget the text so far: another one begins."""

    def propose(self, following: list[int], states: Tensor, strategy: Strategy) -> Proposal:
        """Tokens to come after ``following[-1]``.

        ``states`` [n, W] are the verifier's of the n tokens that it has read since the last call, ``following`` the
        token after each of them. The last of these is the newest token, which the verifier has not read yet.
        """


class NoDrafter:
    """The verifier alone."""

    def restart(self) -> None:
        pass

    def propose(self, following: list[int], states: Tensor, strategy: Strategy) -> Proposal:
        return Proposal([], states.new_empty(0, 0))


class DraftModel:
    """A draft that decodes with a cache, as vLLM runs it.

    Row i embeds token i+1 beside the verifier's state of token i, at position i. After a verification the rows of
    guessed states are dropped and those of the accepted tokens computed again from the verifier's own states. From
    the last of them the draft goes on with its own.
    """

    def __init__(self, draft: Draft, *, tokens: int, device: str | torch.device = "cpu") -> None:
        """``tokens``: how many to propose each time (K)."""
        self.draft, self.tokens, self.device = draft, tokens, torch.device(device)
        draft.expect(tokens)
        self.restart()

    def restart(self) -> None:
        self._cache, self._rows = Cache(), 0  # rows with true states of the verifier

    @torch.inference_mode()
    def propose(self, following: list[int], states: Tensor, strategy: Strategy) -> Proposal:
        logits, state = self._catch_up(torch.tensor([following], device=self.device), states[None])
        token_ids: list[int] = []
        chosen_from: list[Tensor] = []
        for step in range(self.tokens):
            if step:
                given = torch.tensor([token_ids[-1:]], device=self.device)
                position = torch.tensor([[self._rows - 1 + step]], device=self.device)
                logits, state = self.draft(given, state[:, -1:], position, fed_back=True, attend=self._cache)
            chosen_from.append(self.draft.to_target_vocabulary(logits[:, -1:])[0, 0])
            token_ids.append(strategy.choose(chosen_from[-1]))
        proposed = torch.stack(chosen_from)
        require_numbers(proposed, "draft")
        return Proposal(token_ids, proposed)

    def _catch_up(self, following: Tensor, states: Tensor) -> DraftOutput:
        """Read what the verifier has read since the last call. Returns the output of the last piece."""
        self._cache.crop(self._rows)
        for first in range(0, following.shape[1], ROWS):
            piece = slice(first, first + ROWS)
            tokens = following[:, piece]
            positions = torch.arange(self._rows, self._rows + tokens.shape[1], device=self.device)[None]
            output = self.draft(tokens, states[:, piece], positions, fed_back=False, attend=self._cache)
            self._rows += tokens.shape[1]
        return output
