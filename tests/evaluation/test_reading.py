"""What `evaluate --json` printed is read back exactly, and anything else is refused with the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from math import isnan
from typing import Any

import pytest

from spec_convert.evaluation.measured import Measured
from spec_convert.evaluation.reading import read_measured
from spec_convert.reports.escape import finite

from .sample import EVERY, GREEDY, WRONG


@pytest.mark.parametrize("measured", EVERY.values(), ids=EVERY.keys())
def test_what_was_printed_is_what_was_measured(measured: Measured) -> None:
    printed = json.dumps(finite(measured.to_json()), allow_nan=False)
    assert read_measured(json.loads(printed)) == measured


def test_numbers_that_json_does_not_have_come_back() -> None:
    odd = replace(GREEDY, alpha=(float("inf"), None, float("-inf")), differences=(replace(WRONG, logits=(1, 2.5)),))
    assert read_measured(json.loads(json.dumps(finite(odd.to_json())))) == odd
    (first, *_) = read_measured(finite(replace(GREEDY, alpha=(float("nan"), 1, 1)).to_json())).alpha or ()
    assert first is not None
    assert isnan(first)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda it: it.update(schema_version=2), "its schema_version is 2; this spec-convert reads 1"),
        (lambda it: it.pop("schema_version"), "its schema_version is None"),
        (lambda it: it.pop("drafts"), "KeyError: 'drafts'"),
        (lambda it: it.update(drafts="1438"), "'1438' is no count"),
        (lambda it: it.update(drafts=True), "True is no count"),
        (lambda it: it.update(drafts=1437), "its acceptance_lengths does not follow from what was counted"),
        (lambda it: it.update(mean_acceptance_length=3.0), "its mean_acceptance_length does not follow"),
        (lambda it: it.update(more=1), "its more does not follow"),
        (lambda it: it.update(accepted=[417, 791, 208]), "more drafts were accepted further than less far"),
        (lambda it: it.update(accepted=[791, 417, -1]), "-1 is no count"),
        (lambda it: it["seconds"].update(verifier_alone=-3), "-3 is no time"),
        (lambda it: it.update(accepted=[791]), "more or fewer positions than speculative_tokens"),
        (lambda it: it.update(alpha=[0.5]), "more or fewer positions than speculative_tokens"),
        (lambda it: it.update(alpha=["high"] * 3), "'high' is no number"),
        (lambda it: it.update(engine="abacus"), "the engine, a name or a version is not one"),
        (lambda it: it.update(draft=["x"]), "the engine, a name or a version is not one"),
        (lambda it: it.update(versions=[]), "AttributeError"),
        (lambda it: it["tokens"].update(with_draft=None), "nothing was generated with the draft"),
        (lambda it: it["differences"][0].update(tie=0), "0 is neither true nor false"),
        (lambda it: it["differences"][0].update(with_draft="<b>"), "'<b>' is no count"),
    ],
)
def test_another_document_is_refused_with_the_reason(change: Callable[[Any], object], reason: str) -> None:
    document = json.loads(json.dumps(GREEDY.to_json()))
    change(document)
    with pytest.raises(ValueError, match=re.escape(reason)):
        read_measured(document)
