"""Every loss on logits once more, as its formula says it: one row, lists of Python floats, no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp, log


def softmax(logits: Sequence[float]) -> list[float]:
    highest = max(logits)
    powers = [exp(logit - highest) for logit in logits]
    total = sum(powers)
    return [power / total for power in powers]


@dataclass(frozen=True)
class Row:
    draft: tuple[float, ...]  # logits of its Vd tokens
    verifier: tuple[float, ...]  # logits of all V tokens
    kept: tuple[int, ...]  # which of them the draft has

    @cached_property
    def q(self) -> list[float]:
        return softmax(self.draft)

    @cached_property
    def p_true(self) -> list[float]:
        whole = softmax(self.verifier)
        return [whole[token] for token in self.kept]

    @cached_property
    def p(self) -> list[float]:
        inside = sum(self.p_true)
        return [one / inside for one in self.p_true]

    @property
    def normaliser(self) -> float:
        return log(sum(exp(logit) for logit in self.verifier))

    @property
    def seen(self) -> list[float]:
        """The verifier's logits at the draft's tokens."""
        return [self.verifier[token] for token in self.kept]

    @property
    def alpha(self) -> float:
        return sum(min(p, q) for p, q in zip(self.p_true, self.q, strict=True))


def _kl(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * log(x / y) for x, y in zip(a, b, strict=True))


def _soft_ce(row: Row, start: Row) -> float:
    return -sum(p * log(q) for p, q in zip(row.p, row.q, strict=True))


def _forward_kl(row: Row, start: Row) -> float:
    return _kl(row.p, row.q)


def _reverse_kl(row: Row, start: Row) -> float:
    return _kl(row.q, row.p)


def _jsd(row: Row, start: Row) -> float:
    middle = [(p + q) / 2 for p, q in zip(row.p, row.q, strict=True)]
    return (_kl(row.p, middle) + _kl(row.q, middle)) / 2


def _tv(row: Row, start: Row) -> float:
    """Half the L1 distance over the whole vocabulary, to the rest of which the draft gives nothing."""
    outside = 1 - sum(row.p_true)
    return (sum(abs(p - q) for p, q in zip(row.p_true, row.q, strict=True)) + outside) / 2


def _lk_alpha(row: Row, start: Row) -> float:
    return -log(row.alpha)


def _lk_lambda(row: Row, start: Row) -> float:
    lam = exp(-3 * start.alpha)
    return lam * _forward_kl(row, start) + (1 - lam) * _tv(row, start)


def _hard_ce(row: Row, start: Row) -> float:
    return -log(row.q[row.seen.index(max(row.seen))])


def _top_k(row: Row, start: Row) -> float:
    likeliest = sorted(zip(row.p, row.q, strict=True), reverse=True)[:10]
    return -sum(p * log(q) for p, q in likeliest)


def _mse_logits(row: Row, start: Row) -> float:
    return sum((guess - said) ** 2 for guess, said in zip(row.draft, row.seen, strict=True)) / len(row.draft)


# (row, start) -> number. `start`: the row at which what no gradient flows through is taken.
FORMULAS: dict[str, Callable[[Row, Row], float]] = {
    "soft_ce": _soft_ce,
    "forward_kl": _forward_kl,
    "reverse_kl": _reverse_kl,
    "jsd": _jsd,
    "tv": _tv,
    "lk_alpha": _lk_alpha,
    "lk_lambda": _lk_lambda,
    "hard_ce": _hard_ce,
    "top_k": _top_k,
    "mse_logits": _mse_logits,
}


def value(name: str, row: Row) -> float:
    return FORMULAS[name](row, row)


def gradient(name: str, row: Row, *, by: float = 1e-6) -> list[float]:
    """With respect to the draft's logits, by central differences."""

    def moved(token: int, step: float) -> float:
        logits = [logit + step * (place == token) for place, logit in enumerate(row.draft)]
        return FORMULAS[name](replace(row, draft=tuple(logits)), row)

    return [(moved(token, by) - moved(token, -by)) / (2 * by) for token in range(len(row.draft))]
