"""From a store to packed rows: the right layers, the norm where it is due, nothing learned of padding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from spec_convert.errors import UsageError
from spec_convert.training.batches.loading import PackedRows
from spec_convert.training.store.reading import Store

from ..small import LAYERS, random_samples, write_prepared, write_states


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return write_states(tmp_path / "states", random_samples([5, 9, 3, 12]))


def rows_of(store: Store, *, layer_ids: Sequence[int] = (1,), capacity: int = 14, **more: bool) -> PackedRows:
    return PackedRows(
        store, layer_ids=layer_ids, normed=lambda states: -states.float(), capacity=capacity, seed=0, **more
    )


def test_a_row_is_its_samples_end_to_end(store: Store) -> None:
    rows = rows_of(store)
    for row in range(rows.rows(0)):
        batch = rows.load(0, row)
        assert len(batch) == batch.bounds[-1] <= 14
        assert rows.samples(0, row) == len(batch.bounds) - 1
        # The states of these samples are their token ids, and the norm turns their sign.
        assert torch.equal(batch.states, batch.input_ids[:, None].float().expand_as(batch.states))
        assert torch.equal(batch.final, -batch.states)
        for start, end in zip(batch.bounds[:-1], batch.bounds[1:], strict=True):
            assert batch.positions[start:end].tolist() == list(range(end - start))
            assert len(set(batch.documents[start:end].tolist())) == 1
    assert sum(rows.samples(0, row) for row in range(rows.rows(0))) == 4


def test_of_whole_samples_every_token_is_learned_and_of_padding_none(store: Store) -> None:
    answers, rows = rows_of(store), rows_of(store, whole=True, padded=True)
    assert not all(answers.load(0, row).loss_mask.all() for row in range(answers.rows(0)))
    for row in range(rows.rows(0)):
        tokens = len(answers.load(0, row))
        assert rows.load(0, row).loss_mask.tolist() == [True] * tokens + [False] * (14 - tokens)


def test_without_layers_the_draft_is_fed_what_the_head_reads(store: Store) -> None:
    batch = rows_of(store, layer_ids=()).load(0, 0)
    assert torch.equal(batch.states, batch.final)


def test_a_last_state_that_is_normed_is_taken_as_it_is(store: Store) -> None:
    layers = store.manifest.layers
    assert layers is not None
    store.manifest = store.manifest.model_copy(update={"layers": layers.model_copy(update={"last": "after_norm"})})
    batch = rows_of(store).load(0, 0)
    assert torch.equal(batch.final, batch.states)


def test_a_draft_is_not_fed_the_normed_last_state_that_servers_would_not_feed_it(store: Store) -> None:
    layers = store.manifest.layers
    assert layers is not None
    fed = rows_of(store, layer_ids=(1, LAYERS)).load(0, 0)
    assert fed.states.shape[1] == 2 * layers.hidden_size
    store.manifest = store.manifest.model_copy(update={"layers": layers.model_copy(update={"last": "after_norm"})})
    with pytest.raises(UsageError, match=f"the state of layer {LAYERS} after the final norm"):
        rows_of(store, layer_ids=(1, LAYERS))


def test_samples_that_are_too_long_are_cut(store: Store) -> None:
    rows = rows_of(store, capacity=4)
    batches = [rows.load(0, row) for row in range(rows.rows(0))]
    assert sorted(len(batch) for batch in batches) == [3, 4, 4, 4]


def test_padding_is_a_document_of_which_nothing_is_learned(store: Store) -> None:
    plain, rows = rows_of(store), rows_of(store, padded=True)
    for row in range(rows.rows(0)):
        short, long = plain.load(0, row), rows.load(0, row)
        assert len(long) == 14
        assert not long.loss_mask[len(short) :].any()
        assert long.bounds[: len(short.bounds)] == short.bounds


def test_states_that_are_not_there_are_asked_for_by_name(store: Store) -> None:
    with pytest.raises(UsageError, match="layers 1, 6, and 2 is missing") as refused:
        rows_of(store, layer_ids=(1, 2))
    assert f"--layers 1,2,{LAYERS}" in refused.value.hint


def test_prepared_data_must_be_captured_first(tmp_path: Path, verifier: Path) -> None:
    with pytest.raises(UsageError, match="without the verifier's states") as refused:
        rows_of(write_prepared(tmp_path / "prepared", verifier, random_samples([4])))
    assert "spec-convert generate" in refused.value.hint
