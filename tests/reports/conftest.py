"""The one report that every renderer is shown, so that their goldens can be compared with each other."""

from __future__ import annotations

import pytest

from spec_convert.findings import Depth, Finding, Level
from spec_convert.reports import Checked, Report


@pytest.fixture
def report() -> Report:
    missing = [
        Finding(
            rule="missing-tensor",
            level=Level.ERROR,
            where=f"layers.{layer}.mlp.up_proj.weight",
            message=f"the format requires it beside layers.{layer}.mlp.down_proj.weight",
            hint="spec-convert inspect drafts/broken",
        )
        for layer in range(4)
    ]
    shape = Finding(
        rule="wrong-shape",
        level=Level.ERROR,
        where="model.safetensors: fc.weight",
        message="has shape [64, 128], 100% of its rows: expected [64, 192]",
    )
    # Not in the catalogue: a plugin may report by a rule of its own.
    key = Finding(rule="house-rule", level=Level.WARNING, where="config.json", message="names no author")
    return Report(
        checked=(
            Checked(
                source="drafts/broken", format="eagle3", findings=(*missing, shape, key), reached=Depth.HEADERS,
                missed=Depth.HEADERS,
            ),
            Checked(source="org/clean", format="eagle", findings=(), reached=Depth.TENSORS),
        )
    )  # fmt: skip
