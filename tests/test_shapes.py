"""Shape laws: sizes are solved from whatever fixes them, in any order, and a contradiction names who said what."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_convert.shapes import Known, Law, size_of, solve

SIZES = {"hidden": 8, "inner": 24, "heads": 4, "kv_heads": 2, "head_dim": 6, "target": 10}
TERMS = {
    "q": ("heads*head_dim", "2*hidden"),
    "k": ("kv_heads*head_dim", "2*hidden"),
    "up": ("inner", "hidden"),
    "down": ("hidden", "inner"),
    "fc": ("hidden", "3*target"),
    "norm": ("hidden",),
    "q_norm": ("head_dim",),
}


def value(term: str) -> int:
    return prod(int(factor) if factor.isdigit() else SIZES[factor] for factor in term.split("*"))


LAWS = [Law(name, tuple(map(value, terms)), terms) for name, terms in TERMS.items()]


@given(st.permutations(LAWS))
def test_all_sizes_are_solved_in_whatever_order_the_tensors_come(laws: list[Law]) -> None:
    known, findings = solve(laws, {})
    assert findings == []
    assert {name: size.value for name, size in known.items()} == SIZES
    assert known == solve(LAWS, {})[0]


def test_a_solved_size_names_the_first_tensor_that_gives_it() -> None:
    known, _ = solve(LAWS, {})
    assert {name: size.origin for name, size in known.items()} == {
        "hidden": "down", "inner": "down", "target": "fc", "head_dim": "q_norm", "heads": "q", "kv_heads": "k",
    }  # fmt: skip


def test_a_size_may_only_be_solvable_after_another_one() -> None:
    laws = [Law("a", (12,), ("x*y",)), Law("b", (15,), ("y*z",)), Law("c", (5,), ("z",))]
    known, findings = solve(laws, {})
    assert ({name: size.value for name, size in known.items()}, findings) == ({"z": 5, "y": 3, "x": 4}, [])


def test_what_config_says_is_never_overruled_by_a_tensor() -> None:
    known, (finding,) = solve([Law("norm", (9,), ("hidden",))], {"hidden": Known(8, "config.json")})
    assert known["hidden"] == Known(8, "config.json")
    assert (finding.rule, finding.where) == ("wrong-shape", "norm")
    assert "expected hidden = 8 (hidden = 8 from config.json), found 9" in finding.message


def test_two_tensors_that_contradict_each_other_are_told_by_name() -> None:
    _, (finding,) = solve([Law("a.norm", (8,), ("hidden",)), Law("b.norm", (9,), ("hidden",))], {})
    assert finding.where == "b.norm"
    assert "hidden = 8 from a.norm" in finding.message


@pytest.mark.parametrize("shape", [(8, 8), (), (8, 1)])
def test_another_number_of_dimensions_is_a_finding_and_solves_nothing(shape: tuple[int, ...]) -> None:
    known, (finding,) = solve([Law("norm", shape, ("hidden",))], {})
    assert (known, finding.where) == ({}, "norm")


@pytest.mark.parametrize("actual", [13, 0])
def test_a_number_that_cannot_be_the_product_is_a_finding(actual: int) -> None:
    _, (finding,) = solve([Law("q", (actual,), ("heads*head_dim",))], {"head_dim": Known(6, "config.json")})
    assert f"{actual} cannot be heads*head_dim with head_dim = 6 from config.json" in finding.message


def test_what_no_tensor_fixes_is_a_finding() -> None:
    _, (finding,) = solve([Law("q", (12,), ("heads*head_dim",))], {})
    assert finding.message == "has shape 12: 12 cannot be heads*head_dim"


def test_a_transposed_matrix_is_found() -> None:
    laws = [Law("up", (24, 8), ("inner", "hidden")), Law("down", (24, 8), ("hidden", "inner"))]
    _, findings = solve(laws, {"hidden": Known(8, "config.json"), "inner": Known(24, "config.json")})
    assert {finding.where for finding in findings} == {"down"}


def test_the_size_of_a_term_is_its_product() -> None:
    assert size_of("3*heads*head_dim", {"heads": Known(4, ""), "head_dim": Known(6, "")}) == 72
    with pytest.raises(KeyError, match="heads"):
        size_of("2*heads", {})
