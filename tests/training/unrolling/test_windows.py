"""Which rows count at which step, by hand: the first and the last token of each answer, and the ends of documents."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spec_convert.training.batches.batch import Batch
from spec_convert.training.unrolling.windows import counted_rows, whole_windows

from ..drawing import drawn_batch


def masked(*lengths: int, answers: set[int]) -> Batch:
    batch = drawn_batch(lengths)
    return replace(batch, loss_mask=torch.tensor([token in answers for token in range(len(batch))]))


def rows(marked: Tensor) -> list[list[int]]:
    return [step.nonzero()[:, 0].tolist() for step in marked]


def test_a_chat_of_two_turns() -> None:
    """Tokens 3 to 5 and 8 to 9: each answer is begun by the row before it, and its last token is only guessed."""
    chat = masked(12, answers={3, 4, 5, 8, 9})
    assert rows(counted_rows(chat, 3)) == [[2, 3, 7], [1, 2, 6], [0, 1, 5]]
    assert rows(whole_windows(chat, 3)) == [[2, 3, 7], [2], []]


def test_no_chain_goes_on_into_the_next_document() -> None:
    """Tokens 2 to 3 end the first document, 4 to 6 are all of the second, 7 to 8 begin the third."""
    batch = masked(4, 3, 4, answers={2, 3, 4, 5, 6, 7, 8})
    # Of the second document token 4 has no row before it, so that 5 is the first to be embedded.
    assert rows(counted_rows(batch, 3)) == [[1, 4], [0], []]
    assert rows(whole_windows(batch, 3)) == [[1, 4], [], []]


def test_a_text_shorter_than_its_chains() -> None:
    assert rows(counted_rows(masked(3, answers={1, 2}), 4)) == [[0], [], [], []]
    assert rows(counted_rows(masked(1, answers={0}), 2)) == [[], []]
