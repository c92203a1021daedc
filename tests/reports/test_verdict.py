"""What a look at a checkpoint came to, in words that claim no more than was looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spec_convert.findings import Checked, Depth, Finding, Level
from spec_convert.reports.verdict import looked_at, verdict

ERROR = Finding(rule="wrong-shape", level=Level.ERROR, where="fc.weight", message="is odd")
NOTE = Finding(rule="house-rule", level=Level.NOTE, where="config.json", message="is new")
CLEAN = Checked(source="a", format="eagle", findings=(NOTE,), reached=Depth.FORWARD)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "ready to convert"),
        ({"unified": True}, "serves as it lies"),
        ({"findings": (ERROR, NOTE)}, "1 error"),
        ({"findings": (ERROR, ERROR)}, "2 errors"),
        ({"findings": (replace(ERROR, rule="hub-gated"),)}, "no verdict: out of reach"),
        ({"set_aside": ("a-b", "c-d")}, "ready to convert, if a-b, c-d may be set aside"),
    ],
)
def test_a_verdict(changes, words):
    assert verdict(replace(CLEAN, **changes)) == words


@pytest.mark.parametrize(
    ("reached", "missed", "words"),
    [
        (Depth.FORWARD, None, "level forward"),
        (Depth.TENSORS, Depth.FORWARD, "level tensors"),
        (Depth.HEADERS, Depth.HEADERS, "level headers in part"),
        (None, Depth.HEADERS, "not looked at"),
    ],
)
def test_how_deep_the_look_went(reached, missed, words):
    assert looked_at(replace(CLEAN, reached=reached, missed=missed)) == words
