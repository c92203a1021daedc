"""Which samples are captured, and in which shards, before the first one is read by a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from spec_convert.training.capture.plan import CapturePlan, plan_capture
from spec_convert.training.store.reading import Store

from .small import random_samples, write_prepared

LENGTHS = [4, 6, 10, 3, 25, 2, 8]
PER_TOKEN = 100


@pytest.fixture(scope="module")
def store(verifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return write_prepared(tmp_path_factory.mktemp("plan") / "prepared", verifier, random_samples(LENGTHS), per_shard=3)


def plan(
    store: Store, shard_tokens: int = 12, max_samples: int | None = None, target_tokens: int | None = None
) -> CapturePlan:
    return plan_capture(
        store, bytes_per_token=PER_TOKEN, shard_bytes=shard_tokens * PER_TOKEN, max_samples=max_samples,
        target_tokens=target_tokens,
    )  # fmt: skip


def test_every_sample_is_in_one_shard_in_order(store: Store) -> None:
    for shard_tokens in (1, 7, 12, 1000):
        planned = plan(store, shard_tokens)
        assert [place for shard in planned.shards for place in shard] == list(range(len(LENGTHS)))
        assert (planned.samples, planned.tokens) == (len(LENGTHS), sum(LENGTHS))


def test_shards_hold_whole_samples_up_to_their_size(store: Store) -> None:
    assert plan(store, 12).shards == ((0, 1), (2,), (3,), (4,), (5, 6))


@pytest.mark.parametrize(("most", "taken"), [(1, 1), (3, 3), (100, len(LENGTHS))])
def test_it_stops_after_so_many_samples(store: Store, most: int, taken: int) -> None:
    planned = plan(store, max_samples=most)
    assert (planned.samples, planned.tokens) == (taken, sum(LENGTHS[:taken]))


@pytest.mark.parametrize(("target", "taken"), [(1, 1), (4, 1), (5, 2), (20, 3), (1000, len(LENGTHS))])
def test_it_stops_as_soon_as_there_are_so_many_tokens(store: Store, target: int, taken: int) -> None:
    assert plan(store, target_tokens=target).samples == taken


def test_a_smaller_plan_has_the_first_shards_of_a_larger_one(store: Store) -> None:
    assert plan(store, max_samples=4).shards == plan(store).shards[:3]


def test_a_text_that_comes_again_is_left_out_and_counted(verifier: Path, tmp_path: Path) -> None:
    some = random_samples([5, 7, 9])
    again = write_prepared(tmp_path / "prepared", verifier, [*some, some[1], *some])
    planned = plan(again, 1000)
    assert planned.shards == ((0, 1, 2),)
    assert planned.left_out == {"duplicates": 4}


def test_duplicates_do_not_count_towards_the_samples_wanted(verifier: Path, tmp_path: Path) -> None:
    some = random_samples([5, 7, 9])
    again = write_prepared(tmp_path / "prepared", verifier, [some[0], some[0], *some])
    assert plan(again, 1000, max_samples=2).shards == ((0, 3),)


def test_nothing_prepared_is_nothing_planned(verifier: Path, tmp_path: Path) -> None:
    assert plan(write_prepared(tmp_path / "prepared", verifier, [])).shards == ()
