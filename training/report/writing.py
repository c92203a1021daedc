"""What `spec-convert report` does, as Python."""

from __future__ import annotations

from pathlib import Path

from spec_convert.errors import UsageError
from spec_convert.training.layout import RunLayout
from spec_convert.training.report.page import page
from spec_convert.training.report.run import Run, read_run
from spec_convert.training.store.manifest import replace_text


def write_report(folder: Path, output: Path | None = None) -> Path:
    """The page of the run in ``folder``, as its report.html or as ``output``. Raises UsageError."""
    return write_page(read_run(folder), output)


def write_page(run: Run, output: Path | None = None) -> Path:
    """At one instant: whoever looks at it while a run goes on sees the old one or the new one. Raises UsageError."""
    path = output or RunLayout(run.folder).report
    try:
        replace_text(path, page(run))
    except OSError as reason:
        raise UsageError(f"cannot write {path}: {reason.strerror}", hint="give another --output") from reason
    return path
