"""Every format of this package keeps the contract: a new one is under test before anybody writes a test for it."""

from __future__ import annotations

import pytest

from spec_convert.testing import FormatContract

from ..tiny import BUILT_IN


@pytest.mark.parametrize("name", BUILT_IN)
class TestBuiltIns(FormatContract):
    @pytest.fixture(autouse=True)
    def _choose(self, name: str) -> None:
        self.format = name
