"""A table applied to a checkpoint: every tensor is moved, dropped with its reason or reported, in whatever order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_convert.errors import Refused
from spec_convert.findings import Finding
from spec_convert.mapping import Mapped, apply
from spec_convert.operations import Cast, Membership
from spec_convert.shapes import Known
from spec_convert.tensor import Tensor
from spec_convert.tensor_map import Row, TensorMap, derive, drop, either, fuse, keep, move, refuse, split


def mapped(table: TensorMap | Row, *names: str, shape: tuple[int, ...] = (2, 2), **sizes: int) -> Mapped:
    """The table applied to float32 tensors of one shape."""
    tensors = {name: Tensor(name=name, dtype="F32", shape=shape, file="weights", start=0) for name in names}
    return apply(TensorMap(table), tensors, {name: Known(size, "config.json") for name, size in sizes.items()})


def said(result: Mapped) -> list[tuple[str, str]]:
    return [(finding.rule, finding.where) for finding in result.findings]


def missing(result: Mapped) -> list[str]:
    assert {rule for rule, _ in said(result)} <= {"missing-tensor"}
    return [where for _, where in said(result)]


LAYER = TensorMap(keep("{p:gate|up}"), keep("down"), drop("inv_freq", because="recomputed"))
TABLE = TensorMap(
    keep("fc"),
    keep("bias", optional=True),
    either(LAYER.under("midlayer.", "layers.0."), LAYER.under("layers.0.")),
    LAYER.under("layers.{i:1+}."),
    fuse("q", "k", into="qk", shapes="a b, c b"),
    refuse("norm", because="no server computes it"),
)
PREFIXES = ("midlayer", "layers.0", "layers.1", "layers.3")
NAMES = (
    *("fc", "bias", "q", "k", "norm", "stranger", "fc.more", "midlayer.inv_freq", "layers.1.inv_freq"),
    *(f"{prefix}.{name}" for prefix in PREFIXES for name in ("gate", "up", "down")),
)


@given(st.sets(st.sampled_from(NAMES)))
def test_every_tensor_is_moved_dropped_or_reported(names: set[str]) -> None:
    result = mapped(TABLE, *names)
    used = {source for step in result.steps for source in step.sources} | set(result.dropped)
    assert used <= names
    assert bool(names - used) <= bool(result.findings)
    reported = " ".join(f"{finding.where} {finding.message}" for finding in result.findings)
    apart = {"q", "k"} if len(names & {"q", "k"}) == 1 else set()  # a half is reported by its other half
    assert [name for name in names - used - apart if name not in reported] == []


@given(st.permutations(NAMES))
def test_the_result_does_not_depend_on_the_order_of_the_tensors(names: list[str]) -> None:
    assert mapped(TABLE, *names) == mapped(TABLE, *NAMES)


@given(st.sets(st.sampled_from(NAMES)))
def test_no_target_is_written_twice_without_a_finding(names: set[str]) -> None:
    result = mapped(TABLE, *names)
    targets = [name for step in result.steps for name, _ in step.targets]
    twice = {target for target in targets if targets.count(target) > 1}
    assert twice == {where for rule, where in said(result) if rule == "two-spellings"}


def test_a_tensor_without_a_row_is_reported_by_name() -> None:
    assert said(mapped(keep("fc"), "fc", "fc.bias")) == [("unclaimed-tensor", "fc.bias")]


def test_a_dropped_tensor_carries_its_reason() -> None:
    result = mapped(drop("layers.{i:int}.inv", because="recomputed"), "layers.7.inv")
    assert (dict(result.dropped), result.findings) == ({"layers.7.inv": "recomputed"}, ())


def test_a_refused_tensor_is_an_error_with_the_reason_and_no_drop() -> None:
    result = mapped(refuse("norm", because="no server computes it"), "norm")
    assert [(f.rule, f.where, f.message) for f in result.findings] == [
        ("refused-tensor", "norm", "no server computes it")
    ]
    assert not result.dropped


def test_what_may_be_absent_is_not_missed() -> None:
    table = TensorMap(keep("a", optional=True), drop("b", because=""), refuse("c", because=""))
    assert mapped(table).findings == ()


def test_every_word_of_a_choice_must_occur() -> None:
    assert missing(mapped(keep("{p:gate|up|down}"), "up")) == ["down", "gate"]


def test_every_layer_in_use_needs_every_row() -> None:
    table = TensorMap(keep("layers.{i:int}.{p:q|k}"), keep("layers.{i:int}.norm"))
    names = ("layers.0.q", "layers.0.k", "layers.0.norm", "layers.1.q")
    assert missing(mapped(table, *names)) == ["layers.1.k", "layers.1.norm"]


def test_a_skipped_layer_is_missing() -> None:
    table = keep("layers.{i:int}.w")
    assert missing(mapped(table, "layers.0.w", "layers.1.w", "layers.3.w")) == ["layers.2.w"]


@pytest.mark.parametrize(("kind", "present", "gap"), [("1+", "2", "1"), ("3n", "6", "0"), ("3n+2", "8", "2")])
def test_a_skipped_layer_is_looked_for_among_the_numbers_of_its_kind(kind: str, present: str, gap: str) -> None:
    assert missing(mapped(keep(f"mlp.{{i:{kind}}}.w"), f"mlp.{present}.w")) == [f"mlp.{gap}.w"]


@pytest.mark.timeout(5)
@pytest.mark.parametrize("number", ["999999999999999999", "9" * 5000])
def test_a_huge_layer_number_costs_nothing(number: str) -> None:
    result = mapped(keep("layers.{i:int}.w"), "layers.0.w", f"layers.{number}.w")
    assert len(result.findings) == 1


def test_a_hole_for_anything_must_match_something() -> None:
    assert missing(mapped(keep("blocks.{name}.w"))) == ["blocks.{name}.w"]
    assert missing(mapped(keep("blocks.{name}.w"), "blocks.x.w")) == []


@pytest.mark.parametrize("present", ["old.x.w", "new.x.w"])
def test_of_two_spellings_with_a_hole_for_anything_one_is_enough(present: str) -> None:
    table = either(TensorMap(move("old.{name}.w", "new.{name}.w")), TensorMap(keep("new.{name}.w")))
    assert mapped(table, present).findings == ()


def test_a_missing_tensor_of_two_spellings_is_reported_once_with_both() -> None:
    table = either(TensorMap(move("mid.q", "layer.q")), TensorMap(keep("layer.q")))
    (finding,) = mapped(table).findings
    assert (finding.rule, finding.where) == ("missing-tensor", "mid.q")
    assert "(or layer.q)" in finding.message


def test_a_layer_may_mix_no_spellings_of_one_tensor() -> None:
    table = either(TensorMap(move("mid.q", "layer.q")), TensorMap(keep("layer.q")))
    (finding,) = mapped(table, "mid.q", "layer.q").findings
    assert (finding.rule, finding.where) == ("two-spellings", "layer.q")
    assert "layer.q and as mid.q" in finding.message


def test_a_part_of_what_is_fused_is_missing_even_where_another_spelling_exists() -> None:
    table = either(TensorMap(fuse("q", "k", into="qk", shapes="a b, c b")), TensorMap(keep("qk")))
    assert missing(mapped(table, "q")) == ["k"]
    assert missing(mapped(table, "q", "qk")) == ["k"]
    assert missing(mapped(table)) == ["q"]
    assert mapped(table, "qk").findings == ()


def test_the_parts_of_each_layer_are_fused_with_each_other() -> None:
    table = fuse("layers.{i:int}.q", "layers.{i:int}.k", into="layers.{i:int}.qk", shapes="a b, c b")
    result = mapped(table, "layers.1.k", "layers.0.q", "layers.1.q", "layers.0.k")
    assert [(step.sources, step.targets[0][0]) for step in result.steps] == [
        (("layers.0.q", "layers.0.k"), "layers.0.qk"),
        (("layers.1.q", "layers.1.k"), "layers.1.qk"),
    ]
    assert result.targets["layers.0.qk"].shape == (4, 2)


def test_what_is_derived_comes_beside_its_source_and_is_never_missed() -> None:
    table = TensorMap(keep("d2t", optional=True), derive("t2d", of="d2t", via=Membership()))
    assert mapped(table, vocabulary=7).findings == ()
    result = mapped(table, "d2t", shape=(3,), vocabulary=7)
    assert {name: header.shape for name, header in result.targets.items()} == {"d2t": (3,), "t2d": (7,)}


def test_a_shape_law_binds_two_tensors_and_the_config() -> None:
    table = TensorMap(keep("fc", shape="hidden 2*hidden"), keep("norm", shape="hidden"))
    result = mapped(table, "fc", "norm", shape=(4, 8), hidden=4)
    assert said(result) == [("wrong-shape", "norm")]
    assert result.size("hidden") == 4


@pytest.mark.parametrize(
    ("table", "shape", "says"),
    [
        (split("qk", into={"q": "a", "k": "b"}), (5, 2), "need 4 rows"),
        (split("qk", into={"q": "a", "k": "b"}), (), "need 4 rows"),
        (split("qk", into={"q": "a", "k": "unheard"}), (4, 2), "'unheard' is not known"),
        (keep("qk", via=Cast("F32", "F16")), (4, 2), "is F32, expected F16"),
    ],
)
def test_a_tensor_that_does_not_fit_its_operation_is_a_finding(table: Row, shape: tuple[int, ...], says: str) -> None:
    (finding,) = mapped(table, "qk", shape=shape, a=2, b=2).findings
    assert (finding.rule, finding.where) == ("wrong-shape", "qk")
    assert says in finding.message


def test_single_numbers_are_not_fused() -> None:
    result = mapped(fuse("q", "k", into="qk", shapes="a b, c b"), "q", "k", shape=())
    assert {finding.rule for finding in result.findings} == {"wrong-shape"}


def test_a_finding_of_an_operation_names_the_layer() -> None:
    table = split("layers.{i:int}.qk", into={"layers.{i:int}.q": "a", "layers.{i:int}.k": "a"})
    result = mapped(table, "layers.0.qk", "layers.1.qk", shape=(4, 2), a=3)
    assert [finding.where for finding in result.findings] == ["layers.0.qk", "layers.1.qk"]


def test_a_value_that_is_lost_on_the_way_refuses_the_checkpoint() -> None:
    import numpy as np

    (step,) = mapped(keep("w", via=Cast("F16", "F32")), "w", shape=(1,)).steps
    with pytest.raises(Refused) as refused:
        step.run([np.array([1e6], "<f4")])
    finding: Finding = refused.value.findings[0]
    assert (finding.rule, finding.where) == ("value-lost", "w")


def test_a_cast_that_would_make_infinities_writes_nothing(eagle: Any) -> None:
    draft = eagle()
    draft.tensors["fc.weight"][0, 0] = 1e6
    assert set(draft.refusal(dtype="float16")) == {"value-lost"}
    assert draft.convert(dtype="bfloat16").tensors["fc.weight"].isfinite().all()
