"""What happened while a draft was made servable: the conversions, and what was said of them."""

from __future__ import annotations

from typing import Any

import pytest

from spec_convert import servable as module
from spec_convert.conversion import convert

Conversions = list[str]


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> Conversions:
    """The sources of all conversions of this test."""
    sources: Conversions = []

    def counted(source: str, *args: Any, **flags: Any) -> Any:
        sources.append(str(source))
        return convert(source, *args, **flags)

    monkeypatch.setattr(module, "convert", counted)
    return sources


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(module, "say", lines.append)
    return lines
