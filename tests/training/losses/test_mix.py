"""Mixes of losses: how they are written, what is refused, and what they add up to."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from spec_convert.errors import UsageError
from spec_convert.training.losses.distributions import lk_alpha, soft_ce, top_k
from spec_convert.training.losses.features import mse_states, smooth_l1
from spec_convert.training.losses.mix import LOSSES, Mix
from spec_convert.training.losses.target import Target

HASS = Mix.parse("smooth_l1=1.0,soft_ce=0.1,top_k=1.0")
WEIGHTS = st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False)


def drawn(seed: int, columns: int = 30) -> torch.Tensor:
    return torch.randn(5, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("soft_ce", (("soft_ce", 1.0),)),
        ("smooth_l1=1,soft_ce=0.1", (("smooth_l1", 1.0), ("soft_ce", 0.1))),
        (" tv = 2e-3 , jsd ", (("tv", 0.002), ("jsd", 1.0))),
    ],
)
def test_a_mix_is_read_as_people_write_it(text: str, terms: tuple[tuple[str, float], ...]) -> None:
    assert Mix.parse(text).terms == terms


@given(st.dictionaries(st.sampled_from(LOSSES), WEIGHTS, min_size=1))
def test_what_a_mix_writes_is_read_as_the_same(weights: dict[str, float]) -> None:
    mix = Mix(tuple(weights.items()))
    assert Mix.parse(str(mix)) == mix
    assert {*mix.on_logits.terms, *mix.on_states.terms} == set(mix.terms)


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("soft-ce", "there is no loss `soft-ce`", "one of soft_ce, forward_kl"),
        ("smooth_l1,softce=0.1", "there is no loss `softce`", "smooth_l1, mse_states"),
        ("tv=-1", "the weight -1", "above 0"),
        ("tv=0", "the weight 0", "left out"),
        ("tv=nan", "the weight nan", "above 0"),
        ("tv=1e999", "the weight inf", "above 0"),
        ("tv=much", "`much`, which is not a number", "tv=0.1"),
        ("tv=", "``, which is not a number", "tv=0.1"),
        ("tv=1=2", "`1=2`, which is not a number", "tv=0.1"),
        ("tv,jsd,tv=2", "`tv` stands twice", "one weight"),
        ("", "`` is not a mix", "soft_ce"),
        ("tv,", "`tv,` is not a mix", "soft_ce"),
        ("=1", "`=1` is not a mix", "soft_ce"),
    ],
)
def test_a_mix_that_is_not_one_is_refused_in_one_line(text: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        Mix.parse(text)
    assert said in refused.value.message
    assert hint in refused.value.hint


def test_its_parts_are_those_on_logits_and_those_on_states() -> None:
    assert str(HASS.on_logits) == "soft_ce=0.1,top_k=1.0"
    assert str(HASS.on_states) == "smooth_l1=1.0"
    assert not Mix.parse("soft_ce").on_states
    assert not Mix.parse("smooth_l1").on_logits


def test_it_needs_the_normaliser_when_one_of_its_losses_does() -> None:
    assert not HASS.needs_normaliser
    assert Mix.parse("soft_ce=1,tv=0.1").needs_normaliser
    with pytest.raises(ValueError, match="alone do not say"):
        Mix.parse("soft_ce=1,tv=0.1").of_logits(drawn(0), Target(drawn(1)))


def test_it_is_the_weighted_sum_of_its_losses_and_of_their_gradients() -> None:
    draft, target = drawn(0).requires_grad_(), Target(drawn(1), drawn(1).logsumexp(-1))
    mixed = Mix.parse("lk_alpha=3,smooth_l1=5,soft_ce=0.25,top_k=2").of_logits(draft, target)
    alone = 3 * lk_alpha(draft, target) + 0.25 * soft_ce(draft, target) + 2 * top_k(draft, target)
    assert_close(mixed, alone)
    assert_close(*(torch.autograd.grad(loss.sum(), draft)[0] for loss in (mixed, alone)))

    guessed, wanted = drawn(2), drawn(3)
    mixed = Mix.parse("smooth_l1=5,soft_ce=0.25,mse_states=0.5").of_states(guessed, wanted)
    assert_close(mixed, 5 * smooth_l1(guessed, wanted) + 0.5 * mse_states(guessed, wanted))


def test_a_part_that_has_no_losses_is_no_zero_that_trains_nothing() -> None:
    with pytest.raises(ValueError, match="nothing to add up"):
        Mix.parse("smooth_l1").of_logits(drawn(0), Target(drawn(1)))
    with pytest.raises(ValueError, match="nothing to add up"):
        Mix.parse("soft_ce").of_states(drawn(0), drawn(1))


def test_other_rows_than_the_targets_are_not_stretched_to_fit() -> None:
    with pytest.raises(AssertionError, match="the same rows and tokens"):
        Mix.parse("soft_ce").of_logits(drawn(0), Target(drawn(1)[:1]))
    with pytest.raises(AssertionError, match="for each guessed one"):
        Mix.parse("smooth_l1").of_states(drawn(0), drawn(1)[:1])


def test_logits_in_half_precision_are_taken_in_float32() -> None:
    draft, target = drawn(0, 5000).bfloat16(), Target(drawn(1, 5000))
    mixed = Mix.parse("soft_ce").of_logits(draft, target)
    assert mixed.dtype == torch.float32
    assert_close(mixed, soft_ce(draft.float(), target))


def test_the_table_of_losses_is_read_without_torch() -> None:
    """The command line names them in its help."""
    parsed = "from spec_convert.training.losses.mix import Mix; Mix.parse('tv')"
    code = f"import sys; {parsed}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
