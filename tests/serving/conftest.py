"""The Hub of tests/hub, for commands that name what lies there."""

from __future__ import annotations

from ..hub.conftest import hub  # noqa: F401
