"""What the tests of the training stand on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..e2e.conftest import smollm2  # noqa: F401
from .small import write_verifier


@pytest.fixture(scope="session")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in a folder, with its tokenizer. Not to be changed."""
    return write_verifier(tmp_path_factory.mktemp("small") / "verifier")


def pytest_runtest_setup(item: pytest.Item) -> None:
    from ..e2e.conftest import pytest_runtest_setup as require_vllm

    require_vllm(item)
