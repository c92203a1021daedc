"""What a draft is held to at each row: the verifier's distribution, over the draft's tokens and over all of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from spec_convert.training.losses.precision import at_least_float32

if TYPE_CHECKING:
    from torch import Tensor

# A token that the verifier never says, of logit -inf, counts as said with a probability of e^-100, about the smallest
# that float32 holds, so that no difference of logarithms is infinite.
LOG_FLOOR = -100.0


@dataclass(frozen=True, eq=False)
class Target:
    """The verifier at r rows, seen through a draft's vocabulary of Vd tokens.

    Probabilities are what softmaxes in float32 give, or in the logits' own type when that is wider. Each is computed
    when it is first asked for, and then kept. The verifier is not trained: its logits carry no gradient.
    """

    logits: Tensor  # [r, Vd]: the verifier's, at the draft's tokens
    normaliser: Tensor | None = None  # [r], float32 or wider: logsumexp of its logits over its whole vocabulary

    def __post_init__(self) -> None:
        assert not self.logits.requires_grad, "a gradient would flow into the verifier"
        if self.normaliser is not None:
            assert self.normaliser.shape == self.logits.shape[:1], "one normaliser for each row"
            assert self.normaliser.element_size() >= 4, "in half precision p_true would be wrong by some percent"

    @cached_property
    def renormalised(self) -> Tensor:
        """[r, Vd]: the verifier if it could say nothing but the draft's tokens. Each row sums to 1."""
        return at_least_float32(self.logits).softmax(-1)

    @cached_property
    def log_renormalised(self) -> Tensor:
        """[r, Vd]: log of ``renormalised``, nowhere below ``LOG_FLOOR``."""
        return at_least_float32(self.logits).log_softmax(-1).clamp_(min=LOG_FLOOR)

    @cached_property
    def true(self) -> Tensor:
        """[r, Vd]: the verifier's probabilities. A row sums to what it gives to the draft's tokens, 1 at most."""
        return self.log_true.exp()

    @cached_property
    def log_true(self) -> Tensor:
        """[r, Vd]: log of ``true``, nowhere below ``LOG_FLOOR``. Raises ValueError without a normaliser."""
        if self.normaliser is None:
            raise ValueError("the draft's tokens alone do not say how likely the verifier is to choose any of them")
        return (at_least_float32(self.logits) - self.normaliser[:, None]).clamp_(min=LOG_FLOOR)
