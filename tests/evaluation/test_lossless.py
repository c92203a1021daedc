"""Two greedy answers are compared token by token; where they part, the verifier's logits say whether it is a tie."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from spec_convert.evaluation.lossless import first_difference
from spec_convert.evaluation.verifier_model import VerifierModel

Reader = Callable[..., VerifierModel]
PROMPT = [1, 2, 3]


def test_equal_answers_have_no_difference(reader: Reader) -> None:
    assert first_difference(reader(), PROMPT, [4, 5, 6], [4, 5, 6], number=0) is None


def test_the_first_difference_is_shown_with_the_verifiers_logits(reader: Reader) -> None:
    model = reader()
    found = first_difference(model, PROMPT, [4, 5, 6, 9], [4, 8, 6, 7], number=3)
    logits = model.logits_after([*PROMPT, 4])
    assert found is not None
    assert (found.answer, found.position, found.with_draft, found.verifier) == (3, 1, 5, 8)
    assert found.logits == (pytest.approx(float(logits[5])), pytest.approx(float(logits[8])))
    assert not found.tie


@pytest.mark.parametrize(("apart", "tie"), [(0.0, True), (1e-7, True), (1e-3, False)])
def test_logits_within_the_rounding_of_their_dtype_are_a_tie(reader: Reader, apart: float, tie: bool) -> None:
    model = reader()
    with torch.no_grad():
        head = model.model.lm_head.weight
        head[8] = head[5] * (1 + apart)
    found = first_difference(model, PROMPT, [4, 5], [4, 8], number=0)
    assert found is not None
    assert found.tie is tie


def test_a_difference_that_is_a_tie_in_half_precision_only_is_none_in_full(reader: Reader) -> None:
    model = reader()
    with torch.no_grad():
        model.model.lm_head.weight[8] = model.model.lm_head.weight[5] * 1.01
    ties = []
    for dtype in (torch.float32, torch.bfloat16):
        model.model.to(dtype)
        found = first_difference(model, PROMPT, [4, 5], [4, 8], number=0)
        ties.append(found is not None and found.tie)
    assert ties == [False, True]


@pytest.mark.parametrize(("drafted", "own"), [([4, 5], [4]), ([4], [4, 5])])
def test_an_answer_that_ends_early_is_no_tie(reader: Reader, drafted: list[int], own: list[int]) -> None:
    found = first_difference(reader(), PROMPT, drafted, own, number=0)
    assert found is not None
    assert found.position == 1
    assert None in (found.with_draft, found.verifier)
    assert found.logits is None
    assert not found.tie
