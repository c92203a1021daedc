"""Every format of this package keeps the contract: a new one is under test before anybody writes a test for it."""

from __future__ import annotations

import pytest

from spec_convert.registry import registry
from spec_convert.testing import FormatContract

KNOWN = registry()
BUILT_IN = sorted(name for name in KNOWN.formats if KNOWN.provider(name).startswith("spec-convert "))


@pytest.mark.parametrize("name", BUILT_IN)
class TestBuiltIns(FormatContract):
    @pytest.fixture(autouse=True)
    def _choose(self, name: str) -> None:
        self.format = name
