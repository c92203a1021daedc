"""Losses on logits: how far the draft's distribution q is from the verifier's, row by row.

Each takes the draft's logits, [r, Vd] in float32 or wider, and gives [r] in nats unless it says otherwise. p is the
verifier's distribution renormalised over the draft's tokens. What is about acceptance needs p_true, the verifier's own
probabilities of these tokens; for a full vocabulary the two are the same. Values and gradients are finite for all
finite logits of the draft, also where p is 0.
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from spec_convert.training.losses.target import Target

TOP = 10  # HASS's K
ETA = 3.0  # what speculators has


def soft_ce(draft_logits: Tensor, target: Target) -> Tensor:
    """-sum p log q, what EAGLE-3 is trained with (arXiv 2503.01840): ``forward_kl`` and the entropy of p.

    On a CPU it takes, forward and backward, two thirds of the time of the equal logsumexp of the logits less sum p
    logits: the gradient of log_softmax is one pass.
    """
    return -(target.renormalised * draft_logits.log_softmax(-1)).sum(-1)


def forward_kl(draft_logits: Tensor, target: Target) -> Tensor:
    """KL(p || q) = sum p (log p - log q): the draft is to cover all that the verifier says."""
    return (target.renormalised * (target.log_renormalised - draft_logits.log_softmax(-1))).sum(-1)


def reverse_kl(draft_logits: Tensor, target: Target) -> Tensor:
    """KL(q || p) = sum q (log q - log p): the draft is to say nothing that the verifier does not say.

    log p stops at ``LOG_FLOOR``: what is given to a token that the verifier never says costs 100 nats, not infinity.
    """
    log_q = draft_logits.log_softmax(-1)
    return (log_q.exp() * (log_q - target.log_renormalised)).sum(-1)


def jsd(draft_logits: Tensor, target: Target) -> Tensor:
    """Jensen-Shannon divergence, (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2: symmetric, log 2 at most."""
    log_p, log_q = target.log_renormalised, draft_logits.log_softmax(-1)
    log_m = log_p.logaddexp(log_q) - log(2)
    return (target.renormalised * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(-1) / 2


def overlap(draft_logits: Tensor, target: Target) -> Tensor:
    """Alpha = sum min(p_true, q), from 0 to 1: the probability that a sampled token of the draft is accepted.

    Of speculative sampling at temperature 1 (arXiv 2211.17192). Not a loss: the more the better.
    """
    return target.true.minimum(draft_logits.softmax(-1)).sum(-1)


def tv(draft_logits: Tensor, target: Target) -> Tensor:
    """Total variation, 1 - alpha: the probability of a rejection, from 0 to 1.

    Tokens that the draft does not have count as ones to which it gives nothing. As q sums to 1, this is the sum of what
    q has above p_true, whose gradient is much the faster one. Where the two are equal, there is none.
    """
    return (draft_logits.softmax(-1) - target.true).relu().sum(-1)


def lk_alpha(draft_logits: Tensor, target: Target) -> Tensor:
    """-log alpha, of the LK losses (arXiv 2602.23881).

    Summed in logarithms, so that an alpha too small for float32 still has a value and a gradient; log p_true stops at
    ``LOG_FLOOR``, below which nothing draws the draft any more.
    """
    return -target.log_true.minimum(draft_logits.log_softmax(-1)).logsumexp(-1)


def lk_lambda(draft_logits: Tensor, target: Target, *, eta: float = ETA) -> Tensor:
    """lam KL(p || q) + (1 - lam) TV with lam = exp(-eta alpha), of the LK losses (arXiv 2602.23881).

    KL leads while the two are far apart, where TV has hardly a gradient. lam is taken at each row as it stands: no
    gradient flows through it.
    """
    rejected = tv(draft_logits, target)
    lam = (-eta * (1 - rejected.detach())).exp()
    return lam * forward_kl(draft_logits, target) + (1 - lam) * rejected


def hard_ce(draft_logits: Tensor, target: Target) -> Tensor:
    """-log q of the verifier's likeliest token among the draft's."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(draft_logits, target.logits.argmax(-1), reduction="none")


def top_k(draft_logits: Tensor, target: Target) -> Tensor:
    """-sum p log q over the ten likeliest tokens of p, which is not renormalised over them: HASS (arXiv 2408.15766)."""
    p, tokens = target.renormalised.topk(min(TOP, draft_logits.shape[-1]))
    log_q = draft_logits.gather(-1, tokens) - draft_logits.logsumexp(-1, keepdim=True)
    return -(p * log_q).sum(-1)


def mse_logits(draft_logits: Tensor, target: Target) -> Tensor:
    """Squared difference of the logits themselves, a mean over the draft's tokens; not in nats.

    The only one that a constant added to all logits of a row changes, and that a logit of -inf makes infinite.
    """
    return (draft_logits - target.logits).square().mean(-1)
