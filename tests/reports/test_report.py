"""A report counts what was found, whatever renders it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import spec_convert.reports
from spec_convert.findings import Level
from spec_convert.reports import RENDERERS, Checked, Report

ROOT = Path(spec_convert.reports.__file__).parents[2]


def test_findings_are_counted_by_level_over_all_checkpoints(report):
    assert report.counts == {Level.ERROR: 5, Level.WARNING: 1, Level.NOTE: 0}


def test_warnings_alone_are_not_errors(report):
    broken = report.checked[0]
    warnings = tuple(finding for finding in broken.findings if finding.level is Level.WARNING)
    assert not Report(checked=(Checked(source="a", format=None, findings=warnings),)).has_errors


def test_the_count_in_words_leaves_out_empty_levels_and_minds_the_plural(report):
    assert report.in_words == "5 errors, 1 warning in 2 checkpoints"


def test_a_clean_run_is_put_in_words_too():
    clean = Checked(source="a", format="eagle", findings=())
    assert Report(checked=(clean,)).in_words == "no findings in 1 checkpoint"


def test_a_report_without_checkpoints_can_be_rendered_by_all():
    assert all(render(Report(checked=())) for render in RENDERERS.values())


def test_no_renderer_ends_with_a_newline(report):
    assert not [name for name, render in RENDERERS.items() if render(report).endswith("\n")]


def test_rendering_text_and_json_imports_nothing_slow():
    program = (
        "import sys; from spec_convert.reports import RENDERERS, Report; "
        "[RENDERERS[name](Report(checked=())) for name in ('text', 'json', 'github')]; "
        "print(sorted({'pydantic', 'numpy', 'torch', 'xml', 'importlib.metadata'} & set(sys.modules)))"
    )
    # -S: what other packages load at start-up (.pth files) is not ours. The standard library is all that we need.
    command = [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {program}"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
