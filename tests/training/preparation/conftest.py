"""The command line with a cache of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from spec_convert.cli import run
from spec_convert.training.masking.masker import Masked, Masker

from ...cli.conftest import UNSET, Ran
from .rows import (
    Cli,
    use_cache,
)


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)

    def call(*args: object) -> Ran:
        code = run([str(arg) for arg in args])
        said = capfd.readouterr()
        return Ran(code=code, out=said.out, err=said.err)

    return call


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache(tmp_path / "cache", monkeypatch)


@pytest.fixture
def masked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Sequence[Mapping[str, str]]]]:
    """The conversations that were masked in this process, and not taken from the cache."""
    seen: list[Sequence[Mapping[str, str]]] = []
    original = Masker.mask

    def mask(self: Masker, messages: Sequence[Mapping[str, str]], *, cut: Collection[int] = ()) -> Masked:
        seen.append(messages)
        return original(self, messages, cut=cut)

    monkeypatch.setattr(Masker, "mask", mask)
    return seen
