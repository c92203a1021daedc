"""Which of the verifier's tokens a draft may propose: those that its answers hold most often."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spec_convert.errors import UsageError
from spec_convert.training.store.community_reading import PtFolder
from spec_convert.training.store.reading import Store

Counts = NDArray[np.int64]  # [V]: how often answers hold each token


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """``coverage``: the share of the answers' tokens in it. ``filled``: how many of its tokens no answer holds."""

    d2t: NDArray[np.int64]  # [Vd] offsets, ascending ids: draft token i is the verifier's i + d2t[i]
    t2d: NDArray[np.bool_]  # [V] whether the draft has the token
    coverage: float
    filled: int


def token_counts(data: Store | PtFolder, vocab_size: int) -> Counts:
    """How often the answers in ``data`` hold each of the verifier's ``vocab_size`` tokens.

    Raises UsageError for a token outside of that vocabulary.
    """
    counts = np.zeros(vocab_size, np.int64)
    for input_ids, loss_mask in data.tokens():
        tokens, times = np.unique(input_ids[loss_mask].numpy(), return_counts=True)
        if len(tokens) and not (tokens[0] >= 0 and tokens[-1] < vocab_size):
            foreign = tokens[0] if tokens[0] < 0 else tokens[-1]
            raise UsageError(
                f"{data.folder} holds token {foreign}, and the verifier has a vocabulary of {vocab_size}",
                hint="the data are another verifier's: name theirs",
            )
        counts[tokens] += times
    return counts


def draft_vocabulary(counts: Counts, size: int) -> Vocabulary:
    """The ``size`` tokens counted most often, the smaller id first where counts are equal.

    Raises UsageError when nothing was counted, and unless ``size`` lies between 0 and the verifier's vocabulary.
    """
    total = len(counts)
    if size == total:
        raise UsageError(
            f"a draft vocabulary of {size} is the verifier's whole one, which needs no mapping",
            hint="train with the full vocabulary, without d2t and t2d: vLLM refuses a draft that has both",
        )
    if not 0 < size < total:
        raise UsageError(
            f"a draft vocabulary of {size} does not fit into the verifier's of {total}",
            hint="give a smaller --draft-vocab-size",
        )
    if not counts.any():
        raise UsageError(
            "no answer holds a token", hint="check the loss masks: `spec-convert prepare --show-mask 3` shows some"
        )
    chosen = np.sort(by_frequency(counts)[:size])
    t2d = np.zeros(total, np.bool_)
    t2d[chosen] = True
    return Vocabulary(
        d2t=chosen - np.arange(size),
        t2d=t2d,
        coverage=float(counts[chosen].sum() / counts.sum()),
        filled=max(0, size - int(np.count_nonzero(counts))),
    )


def by_frequency(counts: Counts) -> NDArray[np.int64]:
    """[V] ids, the most frequent first; equal counts, and so the unused tokens at the end, by ascending id."""
    return np.argsort(-counts, kind="stable")


def coverage_at(counts: Counts, size: int) -> float:
    """The share of the answers' tokens that the ``size`` most frequent ones make up."""
    return float(np.sort(counts)[::-1][:size].sum() / counts.sum())
