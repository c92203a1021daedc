"""Every format of this package keeps the contract: a new one is under test before anybody writes a test for it."""

from __future__ import annotations

import pytest

from spec_convert.testing import FormatContract, RecognitionContract

from ..tiny import BUILT_IN, RECOGNISED


@pytest.mark.parametrize("name", BUILT_IN)
class TestBuiltIns(FormatContract):
    @pytest.fixture(autouse=True)
    def _choose(self, name: str) -> None:
        self.format = name


@pytest.mark.parametrize("name", RECOGNISED)
class TestRecognised(RecognitionContract):
    @pytest.fixture(autouse=True)
    def _choose(self, name: str) -> None:
        self.format = name
