"""The names and shapes of an example, made of a table: every hole filled, every shape law computed, or refused."""

from __future__ import annotations

import pytest

from spec_convert.operations import Membership
from spec_convert.templates import MapError
from spec_convert.tensor_map import TensorMap, derive, drop, either, fuse, keep, move, refuse, split
from spec_convert.testing import Sizes, shapes_of

SIZES = Sizes(layers=3)


def test_a_shape_law_is_computed_with_the_sizes() -> None:
    table = TensorMap(
        keep("fc", shape="hidden 2*hidden"), keep("q", shape="heads*head_dim hidden"), keep("s", shape="1")
    )
    assert shapes_of(table, Sizes(hidden=8, heads=2, head_dim=5)) == {"fc": (8, 16), "q": (10, 8), "s": (1,)}


def test_a_name_that_is_no_size_is_given_by_keyword() -> None:
    table = TensorMap(keep("fc", shape="hidden aux*target"))
    assert shapes_of(table, SIZES, aux=3, target=7) == {"fc": (16, 21)}
    with pytest.raises(MapError, match=r"'fc': its shape has 'aux'.*by keyword"):
        shapes_of(table, SIZES)


@pytest.mark.parametrize(
    ("hole", "words"),
    [
        ("p:gate|up", ["gate", "up"]),
        ("i:int", ["0", "1", "2"]),
        ("i:1+", ["1", "2"]),
        ("i:3n", ["0", "3", "6"]),
        ("i:3n+2", ["2", "5", "8"]),
    ],
)
def test_a_hole_becomes_each_word_or_number_that_there_is(hole: str, words: list[str]) -> None:
    assert list(shapes_of(TensorMap(keep(f"a.{{{hole}}}", shape="hidden")), SIZES)) == [f"a.{word}" for word in words]


def test_how_many_there_are_of_something_else_than_layers_is_given() -> None:
    assert list(shapes_of(TensorMap(keep("norm.{i:int}", shape="hidden")), SIZES, layers=2)) == ["norm.0", "norm.1"]


def test_a_hole_for_anything_is_refused_with_what_to_do() -> None:
    with pytest.raises(MapError, match=r"`\{name\}` may be anything: leave the row out"):
        shapes_of(TensorMap(keep("a.{name}", shape="hidden")), SIZES)


def test_of_two_spellings_the_first_is_taken() -> None:
    first, second = TensorMap(move("mid.q", "q", shape="hidden")), TensorMap(keep("q", shape="hidden"))
    assert list(shapes_of(either(first, second), SIZES)) == ["mid.q"]
    assert list(shapes_of(second, SIZES)) == ["q"]


def test_only_what_must_occur_is_made_and_what_is_asked_for() -> None:
    table = TensorMap(
        keep("d2t", shape="draft_vocabulary"), keep("head", shape="vocabulary hidden", optional=True),
        drop("old", because=""), refuse("odd", because=""), derive("t2d", of="d2t", via=Membership()),
    )  # fmt: skip
    assert list(shapes_of(table, SIZES)) == ["d2t"]
    assert shapes_of(table, SIZES, also=["head"]) == {"d2t": (20,), "head": (32, 16)}


def test_every_source_of_a_row_has_its_own_shape() -> None:
    table = TensorMap(fuse("q", "k", into="qk", shapes="heads hidden, kv_heads hidden"))
    assert shapes_of(table, SIZES) == {"q": (4, 16), "k": (2, 16)}


def test_a_row_without_a_shape_is_written_by_hand() -> None:
    table = TensorMap(split("gate_up", into={"gate": "inner", "up": "inner"}), keep("norm", shape="hidden"))
    with pytest.raises(MapError, match=r"'gate_up' has no shape: .* write its tensors by hand"):
        shapes_of(table, SIZES)
    assert shapes_of(table, SIZES, leave_out=["gate_up"]) == {"norm": (16,)}


@pytest.mark.parametrize("name", ["layers.1.norm", "layers.{i:int}.norm"])
def test_a_tensor_or_a_whole_row_is_left_out(name: str) -> None:
    made = shapes_of(
        TensorMap(keep("layers.{i:int}.norm", shape="hidden"), keep("fc", shape="1")), SIZES, leave_out=[name]
    )
    assert name not in made
    assert len(made) == (3 if name == "layers.1.norm" else 1)
