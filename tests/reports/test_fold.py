"""Folded names stand for exactly the names that went in."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spec_convert.findings import Finding, Level
from spec_convert.reports.fold import fold, fold_findings


def unfold(name: str) -> list[str]:
    """The names that a folded name stands for, read from its text alone."""
    parts = re.split(r"\{([\d.,]+)\}", name)
    choices: list[list[str]] = []
    for index, part in enumerate(parts):
        runs = [run.split("...") for run in part.split(",")] if index % 2 else []
        numbers = [str(n) for run in runs for n in range(int(run[0]), int(run[-1]) + 1)]
        choices.append(numbers if index % 2 else [part])
    return ["".join(choice) for choice in itertools.product(*choices)]


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        (["layers.0.w", "layers.1.w", "layers.2.w", "layers.3.w"], ["layers.{0...3}.w"]),
        (["layers.0.a", "layers.0.b", "layers.1.a", "layers.1.b"], ["layers.{0...1}.a", "layers.{0...1}.b"]),
        (["0.weight", "2.weight", "3.weight", "7.weight"], ["{0,2...3,7}.weight"]),
        (["layers.10.w", "layers.9.w"], ["layers.{9...10}.w"]),
        (["l.0.e.0.w", "l.0.e.1.w", "l.1.e.0.w", "l.1.e.1.w"], ["l.{0...1}.e.{0...1}.w"]),
        (["l.0.e.0.w", "l.0.e.1.w", "l.1.e.0.w"], ["l.0.e.{0...1}.w", "l.1.e.0.w"]),
        (["heads.0", "heads.1"], ["heads.{0...1}"]),
        (["layers.5.w"], ["layers.5.w"]),
        (["layers.00.w", "layers.01.w"], ["layers.00.w", "layers.01.w"]),
        (["layer1.w", "layer2.w"], ["layer1.w", "layer2.w"]),
        (["fc.weight", "fc.weight"], ["fc.weight"]),
        ([], []),
    ],
)
def test_names_fold_to(names, folded):
    assert fold(names) == folded


def test_a_number_of_ten_thousand_digits_is_text():
    names = ["layers." + "9" * 10_000 + ".w", "layers.0.w"]
    assert fold(names) == names


SEGMENTS = st.sampled_from(["layers", "experts", "w", "0", "1", "2", "3", "10", "01"])


@given(st.lists(st.lists(SEGMENTS, min_size=1, max_size=5).map(".".join), max_size=30))
def test_unfolding_gives_back_every_name_and_no_other(names):
    unfolded = [name for folded in fold(names) for name in unfold(folded)]
    assert sorted(unfolded) == sorted(set(names))


def missing(where: str, message: str = "is missing", hint: str = "") -> Finding:
    return Finding(rule="missing-tensor", level=Level.ERROR, where=where, message=message, hint=hint)


def test_findings_that_differ_in_the_layer_become_one():
    folded = fold_findings(missing(f"layers.{layer}.w", hint="look at it") for layer in range(3))
    assert folded == [missing("layers.{0...2}.w", hint="look at it")]


def test_the_layer_is_folded_in_the_message_too():
    folded = fold_findings(missing(f"layers.{layer}.w", f"instead there is old.{layer}.w") for layer in range(3))
    assert folded == [missing("layers.{0...2}.w", "instead there is old.{0...2}.w")]


def test_findings_that_differ_in_more_than_the_layer_stay_apart():
    findings = [missing("layers.0.w", "has shape [64, 8]"), missing("layers.1.w", "has shape [64, 16]")]
    assert fold_findings(findings) == findings


def test_a_message_that_names_another_layer_stays_apart():
    findings = [missing("layers.0.w", "see layers.1.w"), missing("layers.1.w", "see layers.0.w")]
    assert fold_findings(findings) == findings


def test_findings_of_different_levels_stay_apart():
    findings = [missing("layers.0.w"), replace(missing("layers.1.w"), level=Level.NOTE)]
    assert fold_findings(findings) == findings


@given(st.text(), st.text(), st.text())
def test_a_finding_alone_is_never_changed(where, message, hint):
    assert fold_findings([missing(where, message, hint)]) == [missing(where, message, hint)]
