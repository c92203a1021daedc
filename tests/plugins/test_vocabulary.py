"""The draft vocabulary of EAGLE-3: what `d2t` means is decided by its values, and doubtful maps are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spec_convert import load_draft

Make = Callable[..., Any]
TOKENS = list(range(4, 24))


@pytest.fixture
def mapped(eagle3: Make) -> Callable[..., Any]:
    """A draft with this `d2t` and the marks of these tokens; None leaves the marks out."""

    def make(d2t: torch.Tensor, marks: torch.Tensor | None) -> Any:
        draft = eagle3()
        del draft.tensors["t2d"]
        draft.tensors["d2t"] = d2t
        if marks is not None:
            draft.tensors["t2d"] = marks
        return draft

    return make


@pytest.fixture
def full(eagle3: Make) -> Any:
    """A draft that knows every token of its verifier, as published: with a map that maps nothing."""
    draft = eagle3(draft_vocab_size=32)
    draft.tensors["lm_head.weight"] = torch.ones(32, 16)
    draft.tensors |= {"d2t": torch.zeros(32, dtype=torch.int64), "t2d": torch.ones(32, dtype=torch.bool)}
    return draft


def marks(tokens: list[int]) -> torch.Tensor:
    return torch.zeros(32, dtype=torch.bool).index_fill(0, torch.tensor(tokens), True)


def offsets(tokens: list[int]) -> torch.Tensor:
    return torch.tensor(tokens) - torch.arange(len(tokens))


def targets(converted: Any) -> list[int]:
    """The tokens that the converted draft says, by its reference module."""
    return load_draft(converted.output).target_ids().tolist()


def test_offsets_are_kept(mapped: Any) -> None:
    converted = mapped(offsets(TOKENS), marks(TOKENS)).convert(validate=True)
    assert targets(converted) == TOKENS


def test_offsets_in_any_order_are_kept(mapped: Any) -> None:
    shuffled = [TOKENS[(7 * n) % 20] for n in range(20)]
    assert targets(mapped(offsets(shuffled), marks(TOKENS)).convert()) == shuffled


def test_absolute_ids_are_written_as_offsets(mapped: Any) -> None:
    converted = mapped(torch.tensor(TOKENS), marks(TOKENS)).convert(validate=True)
    assert targets(converted) == TOKENS
    assert "d2t-absolute" in converted.findings


def test_narrow_types_of_the_map_are_widened(mapped: Any) -> None:
    converted = mapped(offsets(TOKENS).int(), marks(TOKENS).byte()).convert(validate=True)
    assert targets(converted) == TOKENS
    assert [converted.tensors[name].dtype for name in ("d2t", "t2d")] == [torch.int64, torch.bool]


def test_narrow_absolute_ids_are_written_as_wide_offsets(mapped: Any) -> None:
    converted = mapped(torch.tensor(TOKENS).int(), marks(TOKENS)).convert(validate=True)
    assert targets(converted) == TOKENS
    assert converted.tensors["d2t"].dtype == torch.int64


def test_marks_other_than_zero_and_one_are_refused(mapped: Any) -> None:
    assert "0 and 1" in mapped(offsets(TOKENS), marks(TOKENS).byte() * 2).refusal()["d2t-inconsistent"].message


def test_missing_marks_are_rebuilt(eagle3: Make) -> None:
    draft = eagle3()
    del draft.tensors["t2d"]
    converted = draft.convert(validate=True)
    assert torch.equal(converted.tensors["t2d"], marks(TOKENS))
    assert "t2d-rebuilt" in converted.findings


def test_missing_marks_are_rebuilt_from_a_narrow_map(mapped: Any) -> None:
    converted = mapped(offsets(TOKENS).int(), None).convert(validate=True)
    assert torch.equal(converted.tensors["t2d"], marks(TOKENS))


def test_absolute_ids_without_marks_are_refused(mapped: Any) -> None:
    last = list(range(12, 32))
    assert "d2t-ambiguous" in mapped(torch.tensor(last), None).refusal()


def test_a_map_that_makes_sense_in_both_readings_is_refused(eagle3: Make) -> None:
    draft = eagle3(draft_vocab_size=8)
    del draft.tensors["t2d"]
    draft.tensors |= {"lm_head.weight": torch.ones(8, 16), "d2t": torch.arange(8)}
    assert "d2t-ambiguous" in draft.refusal()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_map_that_was_rounded_to_floats_is_refused(mapped: Any, dtype: torch.dtype) -> None:
    assert "rounds" in mapped(offsets(TOKENS).to(dtype), marks(TOKENS)).refusal()["vocabulary-map-dtype"].message


@pytest.mark.parametrize(
    ("changed", "words"), [(40, "outside the vocabulary"), (-40, "outside the vocabulary"), (1, "both stand for token")]
)
def test_a_map_that_maps_wrongly_is_refused(mapped: Any, changed: int, words: str) -> None:
    d2t = offsets(TOKENS)
    d2t[3] += changed
    assert words in mapped(d2t, marks(TOKENS)).refusal()["d2t-inconsistent"].message


def test_a_map_that_contradicts_its_marks_is_refused(mapped: Any) -> None:
    assert "disagrees with t2d" in mapped(offsets(TOKENS), marks(TOKENS[1:])).refusal()["d2t-inconsistent"].message


@pytest.mark.parametrize(("name", "length"), [("d2t", 19), ("t2d", 31)])
def test_a_map_of_another_length_is_refused(eagle3: Make, name: str, length: int) -> None:
    draft = eagle3()
    draft.tensors[name] = draft.tensors[name][:length].clone()
    assert draft.refusal()["wrong-shape"].where == name


def test_a_reduced_vocabulary_without_a_map_is_refused(eagle3: Make) -> None:
    draft = eagle3()
    del draft.tensors["d2t"], draft.tensors["t2d"]
    assert "20 of 32" in draft.refusal()["d2t-missing"].message


def test_a_reduced_vocabulary_without_a_head_is_refused(eagle3: Make) -> None:
    draft = eagle3()
    del draft.tensors["lm_head.weight"]
    assert draft.refusal()["reduced-head-missing"].where == "lm_head.weight"


def test_a_vocabulary_larger_than_the_verifiers_is_refused(eagle3: Make) -> None:
    assert "draft-vocabulary-too-large" in eagle3(draft_vocab_size=33).refusal()


def test_the_draft_vocabulary_is_counted_when_the_config_does_not_say(eagle3: Make) -> None:
    assert eagle3(draft_vocab_size=...).convert().config["draft_vocab_size"] == 20


def test_a_map_that_maps_nothing_is_dropped_because_servers_fail_on_it(full: Any) -> None:
    converted = full.convert(validate=True)
    assert set(converted.dropped) == {"d2t", "t2d"}
    assert {"d2t", "t2d"}.isdisjoint(converted.tensors)


def test_the_absolute_identity_maps_nothing_either(full: Any) -> None:
    full.tensors["d2t"] = torch.arange(32)
    assert set(full.convert().dropped) == {"d2t", "t2d"}


def test_a_permuted_full_vocabulary_is_refused(full: Any) -> None:
    full.tensors["d2t"] = torch.arange(32).flip(0) - torch.arange(32)
    assert "permutes" in full.refusal()["d2t-inconsistent"].message


def test_a_full_vocabulary_that_leaves_tokens_out_is_refused(full: Any) -> None:
    full.tensors["t2d"] = marks(TOKENS)
    assert full.refusal()["d2t-inconsistent"].where == "t2d"


def test_a_map_of_floats_at_full_vocabulary_is_refused(full: Any) -> None:
    full.tensors["d2t"] = torch.zeros(32)
    assert "vocabulary-map-dtype" in full.refusal()


def test_a_vocabulary_said_to_be_as_small_as_the_drafts_is_refused(eagle3: Make) -> None:
    assert eagle3(vocab_size=20).refusal()["wrong-shape"].where == "t2d"


def test_zeros_without_marks_are_no_map(mapped: Any) -> None:
    assert "zeros" in mapped(torch.zeros(20, dtype=torch.int64), None).refusal()["d2t-ambiguous"].message


def test_zeros_whose_marks_are_the_first_tokens_are_a_map(mapped: Any) -> None:
    zeros = torch.zeros(20, dtype=torch.int64)
    assert targets(mapped(zeros, marks(list(range(20)))).convert()) == list(range(20))


def test_a_full_vocabulary_without_a_head_borrows_the_verifiers(full: Any) -> None:
    del full.tensors["lm_head.weight"]
    assert "lm_head.weight" not in full.convert(validate=True).tensors
