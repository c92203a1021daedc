"""Tables: refused when two rows could meet, composed with the same care, and undone by their inverse on real arrays."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_convert.bytes import NUMPY
from spec_convert.mapping import apply
from spec_convert.operations import COPY, Cast, Membership, OffsetsFromAbsolute
from spec_convert.shapes import Known
from spec_convert.templates import MapError
from spec_convert.tensor import Tensor
from spec_convert.tensor_map import Row, TensorMap, derive, drop, either, fuse, keep, move, refuse, split

Values = dict[str, tuple[str, np.ndarray]]  # the dtype code and the array of each tensor, by name
SIZES = {name: Known(size, "config.json") for name, size in {"q": 4, "kv": 2, "inner": 3, "vocabulary": 9}.items()}

# fmt: off
LAYER = TensorMap(
    fuse("q", "k", "v", into="qkv", shapes="q hidden, kv hidden, kv hidden"),
    split("gate_up",                into={"mlp.gate": "inner", "mlp.up": "inner"}),
    move("norm.{p:in|post}",        "norms.{p:in|post}", shape="hidden"),
    drop("inv_freq",                because="recomputed"),
)
TABLE = TensorMap(
    either(LAYER.under("first.", "layers.0."), LAYER.under("layers.0.")),
    either(LAYER.under("h.{i:1+}.", "layers.{i:1+}."), LAYER.under("layers.{i:1+}.")),
    keep("any.{rest...}"),
    move("head",                    "lm_head", optional=True, via=Cast("F32", "BF16")),
    keep("absolute",                shape="draft", via=OffsetsFromAbsolute()),
    keep("d2t",                     shape="draft"),
    derive("t2d",                   of="d2t", via=Membership()),
    refuse("odd",                   because="computes something else"),
)
# fmt: on


def run(table: TensorMap, values: Values, sizes: dict[str, Known]) -> tuple[Values, dict[str, Known]]:
    headers = {
        name: Tensor(name=name, dtype=dtype, shape=array.shape, file="weights", start=0)
        for name, (dtype, array) in values.items()
    }
    mapped = apply(table, headers, sizes)
    assert mapped.findings == ()
    made: Values = {}
    for step in mapped.steps:
        for (name, header), array in zip(step.targets, step.run([values[s][1] for s in step.sources]), strict=True):
            assert (array.dtype, array.shape) == (np.dtype(NUMPY[header.dtype]), header.shape)
            made[name] = (header.dtype, array)
    return made, dict(mapped.sizes)


@st.composite
def checkpoints(draw: st.DrawFn) -> Values:
    """Random bits of every dtype, any number of layers in either spelling, optional tensors there or not."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    dtypes, hidden, values = st.sampled_from(sorted(NUMPY)), draw(st.integers(1, 4)), {}

    def add(name: str, dtype: str, *shape: int) -> None:
        bits = random.bytes(int(np.prod(shape)) * np.dtype(NUMPY[dtype]).itemsize)
        array = np.frombuffer(bits, NUMPY[dtype]) if dtype != "BOOL" else np.frombuffer(bits, "u1") % 2 == 1
        values[name] = (dtype, array.reshape(shape))

    first, later = draw(st.sampled_from(["first.", "layers.0."])), draw(st.sampled_from(["h.", "layers."]))
    for prefix in (first, *(f"{later}{number}." for number in range(1, draw(st.integers(1, 4))))):
        qkv = draw(dtypes)
        for name, rows in {"q": 4, "k": 2, "v": 2}.items():
            add(prefix + name, qkv, rows, hidden)
        add(f"{prefix}gate_up", draw(dtypes), 6, hidden)
        add(f"{prefix}norm.in", draw(dtypes), hidden)
        add(f"{prefix}norm.post", draw(dtypes), hidden)
    add("any.thing.at.all", draw(dtypes), *draw(st.lists(st.integers(0, 3), max_size=3)))
    if draw(st.booleans()):
        add("head", "BF16", hidden, 2)
    tokens = np.sort(random.permutation(9)[: draw(st.integers(1, 9))])
    values |= {"absolute": ("I64", tokens), "d2t": ("I64", tokens - np.arange(len(tokens)))}
    if draw(st.booleans()):
        add("first.inv_freq", "F32", 2)
    return values


def canonical(values: Values) -> Values:
    """As the inverse writes it: the first of two spellings, without what was dropped; every NaN is torch's NaN."""
    named = {name.replace("layers.0.", "first.").replace("layers.", "h."): value for name, value in values.items()}
    if "head" in named:
        bits = named["head"][1]
        named["head"] = ("BF16", np.where((bits & 0x7FFF) > 0x7F80, np.uint16(0x7FC0), bits))
    return {name: value for name, value in named.items() if not name.endswith("inv_freq")}


@given(checkpoints())
def test_the_inverse_of_a_table_gives_back_every_bit(values: Values) -> None:
    unified, sizes = run(TABLE, values, SIZES)
    back, _ = run(TABLE.inverse, unified, sizes)
    expected = canonical(values)
    assert {name: (dtype, array.shape) for name, (dtype, array) in back.items()} == {
        name: (dtype, array.shape) for name, (dtype, array) in expected.items()
    }
    for name, (_, array) in expected.items():
        assert back[name][1].tobytes() == array.tobytes(), name


WAYS = ("move", "keep", "cast", "fuse", "split", "drop", "refuse", "derive", "either")


@st.composite
def tables(draw: st.DrawFn) -> TensorMap:
    """Rows of every kind in any order, each about names of its own."""
    return TensorMap(
        *(_part(way, f"{way}{number}") for number, way in enumerate(draw(st.lists(st.sampled_from(WAYS)))))
    )


def _part(way: str, name: str) -> Row | TensorMap:
    parts: dict[str, Row | TensorMap] = {
        "move": move(f"{name}.{{i:int}}.old", f"{name}.{{i:int}}.new", shape="a b", optional=True),
        "keep": keep(f"{name}.{{p:x|y}}", shape="a"),
        "cast": move(f"{name}.half", f"{name}.whole", via=Cast("F32", "BF16"), shape="a"),
        "fuse": fuse(f"{name}.q", f"{name}.k", into=f"{name}.qk", shapes="a b, c b"),
        "split": split(f"{name}.gu", into={f"{name}.g": "a", f"{name}.u": "c"}),
        "drop": drop(f"{name}.{{rest...}}", because="not needed"),
        "refuse": refuse(name, because="computes something else"),
        "derive": TensorMap(keep(f"{name}.d2t"), derive(f"{name}.t2d", of=f"{name}.d2t", via=Membership())),
        "either": either(TensorMap(move(f"{name}.first", name)), TensorMap(move(f"{name}.second", name))),
    }
    return parts[way]


def moved(table: TensorMap) -> list[Row]:
    """What can be undone: no drops, and one spelling of each tensor. Laws are kept of what is copied."""
    spelt = [row.spelling for row in table]
    return [
        replace(row, spelling="", laws=row.laws if row.via is COPY else ())
        for number, row in enumerate(table.rows)
        if row.targets and not row.derived and not (row.spelling and row.spelling in spelt[:number])
    ]


@given(tables())
def test_the_inverse_of_the_inverse_is_what_the_table_moves(table: TensorMap) -> None:
    assert list(table.inverse.inverse) == moved(table)
    assert list(table.inverse.inverse.inverse) == moved(table.inverse)


@given(tables(), st.integers(0, 9))
def test_a_prefix_is_the_same_before_and_after_composing_and_turning_round(table: TensorMap, at: int) -> None:
    left, right = TensorMap(*table.rows[:at]), TensorMap(*table.rows[at:])
    assert (left + right).under("a.", "b.").rows == (left.under("a.", "b.") + right.under("a.", "b.")).rows
    assert table.under("a.").under("b.").rows == table.under("b.a.").rows
    turned = [row for row in table.inverse.under("b.", "a.") if row.targets]  # drops say of what they were derived
    assert [row for row in table.under("a.", "b.").inverse if row.targets] == turned


@given(tables(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_neither_what_is_moved_nor_how(table: TensorMap, random: Random) -> None:
    shuffled = list(table.rows)
    random.shuffle(shuffled)
    names = {t.fill(dict.fromkeys(t.holes, "x") | {"i": "0"}) for row in table for t in row.sources}
    headers = {name: Tensor(name=name, dtype="F32", shape=(2, 2), file="weights", start=0) for name in names}
    sizes = {name: Known(2, "config.json") for name in ("a", "b", "c", "vocabulary")}
    one, other = (apply(TensorMap(*rows), headers, sizes) for rows in (table.rows, shuffled))
    assert (one.steps, one.dropped, one.sizes) == (other.steps, other.dropped, other.sizes)
    assert {(f.rule, f.where) for f in one.findings} == {(f.rule, f.where) for f in other.findings}


def test_what_was_derived_is_dropped_on_the_way_back() -> None:
    table = TensorMap(keep("d2t"), derive("t2d", of="d2t", via=Membership()))
    (row,) = [row for row in table.inverse if not row.targets]
    assert (row.text, row.because) == ("t2d", "derived from d2t")


@pytest.mark.parametrize(
    "rows",
    [
        (keep("a.weight"), move("a.weight", "b.weight")),
        (keep("a.{i:int}"), drop("a.{x}", because="")),
        (keep("a.{i:3n}"), move("a.{i:2n}", "b.{i:2n}")),
        (keep("a.b"), refuse("{rest...}", because="")),
        (fuse("q", "q", into="qq", shapes="x y, x y"),),
    ],
)
def test_two_rows_that_could_claim_one_name_are_refused(rows: tuple[Row, ...]) -> None:
    with pytest.raises(MapError, match="share the source"):
        TensorMap(*rows)


@pytest.mark.parametrize(
    "rows",
    [
        (keep("a"), move("b", "a")),
        (move("a.{i:int}", "c.{i:int}"), move("b.{i:1+}", "c.{i:1+}")),
        (keep("t2d"), keep("d2t"), derive("t2d", of="d2t", via=Membership())),
        (split("qk", into={"q": "x", "k": "x"}), keep("k")),
    ],
)
def test_two_rows_that_could_write_one_name_are_refused(rows: tuple[Row, ...]) -> None:
    with pytest.raises(MapError, match="share the target"):
        TensorMap(*rows)


def test_the_order_of_rows_never_matters_to_an_overlap() -> None:
    one, other = keep("a.{x...}"), move("a.b", "c")
    for rows in ((one, other), (other, one)):
        with pytest.raises(MapError):
            TensorMap(*rows)


def test_neighbours_that_never_meet_may_stand_together() -> None:
    table = TensorMap(keep("mlp.{i:3n}.w"), keep("mlp.{i:3n+2}.w"), keep("mlp.{i:3n+1}.w"), keep("mlp.x.w"))
    assert len(table.rows) == 4


@pytest.mark.parametrize(
    ("source", "target"),
    [("a.{i:int}", "b"), ("a", "b.{i:int}"), ("a.{i:int}", "b.{j:int}"), ("a.{i:int}", "b.{i:1+}"), ("{p:a|b}", "{p}")],
)
def test_both_sides_of_a_row_must_have_the_same_holes(source: str, target: str) -> None:
    with pytest.raises(MapError, match="the same holes"):
        move(source, target)


def test_a_derived_tensor_needs_one_whole_name() -> None:
    with pytest.raises(MapError, match="without holes"):
        derive("t2d.{i:int}", of="d2t.{i:int}", via=Membership())


def test_fuse_wants_one_shape_for_each_source() -> None:
    with pytest.raises(MapError, match="2 sources, 1 shapes"):
        fuse("q", "k", into="qk", shapes="x y")


def test_composition_is_checked_again() -> None:
    one, other = TensorMap(keep("a")), TensorMap(move("b", "a"))
    with pytest.raises(MapError, match="share the target 'a'"):
        one + other
    with pytest.raises(MapError, match="share the source 'a'"):
        TensorMap(one, keep("a"))


def test_under_puts_a_prefix_before_every_source_and_every_target() -> None:
    table = TensorMap(move("q", "p"), drop("inv", because="")).under("layers.{i:int}.", "blocks.{i:int}.")
    names = [[template.text for template in (*row.sources, *row.targets)] for row in table]
    assert names == [["layers.{i:int}.q", "blocks.{i:int}.p"], ["layers.{i:int}.inv"]]


def test_under_can_make_rows_meet_and_refuses_that() -> None:
    rows = TensorMap(keep("q"))
    with pytest.raises(MapError, match=r"layers\.1\.q"):
        rows.under("layers.{i:int}.") + rows.under("layers.1.")


def test_two_spellings_may_write_one_name_and_only_they_may() -> None:
    spellings = either(TensorMap(move("mid.q", "layer.q")), TensorMap(keep("layer.q")))
    assert [row.targets[0].text for row in spellings] == ["layer.q", "layer.q"]
    with pytest.raises(MapError, match="share the target"):
        spellings + TensorMap(move("other.q", "layer.q"))


def test_two_spellings_of_one_source_are_no_alternative() -> None:
    with pytest.raises(MapError, match="share the source"):
        either(TensorMap(keep("q")), TensorMap(move("q", "p")))


def test_of_two_spellings_the_inverse_writes_the_first_under_each_prefix() -> None:
    spellings = either(TensorMap(move("old", "new")), TensorMap(keep("new")))
    table = spellings.under("a.") + spellings.under("b.")
    assert [(row.sources[0].text, row.targets[0].text) for row in table.inverse] == [
        ("a.new", "a.old"),
        ("b.new", "b.old"),
    ]
