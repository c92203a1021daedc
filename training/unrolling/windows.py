"""Which rows count at which step: chains whose embedded and guessed tokens are the verifier's own.

Row i starts a chain beside token i. Its step k embeds token i + 1 + k and guesses token i + 2 + k; both must belong to
an answer. A server asks a row for the first time when its embedded token is the first of an answer, so the mask is
read at that token and not at the row itself; and a row whose embedded token ends an answer is asked for nothing.

For a mask of 0 0 1 1 1 0 in one document:

    step 0:  row 1 (embeds 2, guesses 3), row 2 (embeds 3, guesses 4)
    step 1:  row 0 (embeds 2, guesses 3), row 1 (embeds 3, guesses 4)
    windows of step 1: row 1 alone: tokens 2, 3 and 4 are all of the answer
"""

from __future__ import annotations

import torch
from torch import Tensor

from spec_convert.training.batches.batch import Batch


def counted_rows(batch: Batch, steps: int) -> Tensor:
    """[K, S] bool: the rows of weight 1 at each step."""
    answers = _ahead(batch, steps + 1)
    return answers[:steps] & answers[1:]


def whole_windows(batch: Batch, steps: int) -> Tensor:
    """[K, S] bool: chains of which every token from the first embedded to the guessed one is an answer's."""
    return _ahead(batch, steps + 1).long().cumprod(dim=0).bool()[1:]


def _ahead(batch: Batch, most: int) -> Tensor:
    """[most, S] bool: whether the token 1, 2, … after each row is an answer's, in the row's own document."""
    documents, ahead = batch.documents, torch.zeros(most, len(batch), dtype=torch.bool, device=batch.input_ids.device)
    for far in range(1, min(most, len(batch) - 1) + 1):
        ahead[far - 1, :-far] = batch.loss_mask[far:] & (documents[far:] == documents[:-far])
    return ahead
