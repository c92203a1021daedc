"""Whether a greedy answer with the draft is the verifier's own, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from spec_convert.evaluation.measured import Difference
from spec_convert.evaluation.ties import is_tie
from spec_convert.evaluation.verifier_model import VerifierModel


def first_difference(
    verifier: VerifierModel, prompt: Sequence[int], with_draft: Sequence[int], alone: Sequence[int], *, number: int
) -> Difference | None:
    """Where two greedy answers to one prompt part; None when they do not.

    After a tie both texts are right and have nothing more in common: only the first difference says something. The
    verifier's logits there come from a fresh pass over the whole text, so that they lean to neither side.
    """
    pairs = enumerate(zip_longest(with_draft, alone))
    parting = next(((position, pair) for position, pair in pairs if pair[0] != pair[1]), None)
    if parting is None:
        return None
    position, (drafted, own) = parting
    if drafted is None or own is None:
        return Difference(answer=number, position=position, with_draft=drafted, verifier=own, logits=None, tie=False)
    logits = verifier.logits_after([*prompt, *alone[:position]])
    both = float(logits[drafted]), float(logits[own])
    dtype = str(logits.dtype).removeprefix("torch.")
    return Difference(
        answer=number,
        position=position,
        with_draft=drafted,
        verifier=own,
        logits=both,
        tie=is_tie(*both, dtype),
    )
