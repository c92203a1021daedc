"""The findings of one `validate` run, and a renderer for each of their readers: people, scripts and CI systems."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from spec_convert.findings import Checked, Report

__all__ = ["RENDERERS", "Checked", "Report"]


def _renderer(module: str) -> Callable[[Report], str]:
    def render(report: Report) -> str:
        # One run needs one renderer; XML, hashing and package metadata are not free to import.
        rendered: str = import_module(f"spec_convert.reports.{module}").render(report)
        return rendered

    return render


# By the name that `--format` takes. None of them ends its text with a newline.
RENDERERS: dict[str, Callable[[Report], str]] = {
    "text": _renderer("text"),
    "json": _renderer("json_"),
    "github": _renderer("github"),
    "sarif": _renderer("sarif"),
    "junit": _renderer("junit"),
}
