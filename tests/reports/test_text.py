"""The report as a person reads it."""

from __future__ import annotations

from spec_convert.reports import RENDERERS

GOLDEN = """\
drafts/broken: layers.{0...3}.mlp.up_proj.weight: error[missing-tensor]: \
the format requires it beside layers.{0...3}.mlp.down_proj.weight
    hint: spec-convert inspect drafts/broken
drafts/broken: model.safetensors: fc.weight: error[wrong-shape]: \
has shape [64, 128], 100% of its rows: expected [64, 192]
drafts/broken: config.json: warning[house-rule]: names no author
drafts/broken: eagle3, level headers in part: 5 errors
org/clean: eagle, level tensors: ready to convert
5 errors, 1 warning in 2 checkpoints"""


def test_text_is_one_line_a_finding_with_its_hint_below_then_one_a_checkpoint_and_the_count_last(report):
    assert RENDERERS["text"](report) == GOLDEN
