"""What triggers need beyond the fixtures of all tests: a Hub, and plugins of somebody else's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from spec_convert.registry import DISABLE, registry

from ..evaluation.conftest import llama, with_tokenizer  # noqa: F401  the tokenizer of tests/evaluation
from ..hub.conftest import hub, unreachable  # noqa: F401  the Hub of tests/hub
from .trigger import Make

NAME = "somebody_elses"
CODE = """
from dataclasses import replace
from spec_convert.evidence import weigh
from spec_convert.formats import Export
from spec_convert.hookspecs import hookimpl
from spec_convert.plugins.eagle import EAGLE

@hookimpl
def spec_convert_formats():
    return [FORMAT]
"""


@pytest.fixture
def make(request: pytest.FixtureRequest) -> Make:
    return Make(request)


@pytest.fixture
def talking(verifier: Path, with_tokenizer: Callable[..., Path]) -> Callable[..., Path]:  # noqa: F811
    """`talking(initializer_range=0.02)` makes a real model of the verifier, which answers prompts."""

    def make(**changes: Any) -> Path:
        llama(8, **changes).save_pretrained(verifier)
        return with_tokenizer()

    return make


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`plugin("replace(EAGLE, …)")` installs a package that brings this format, for as long as the test lasts.

    Code may follow the expression, after an empty line.
    """
    site = tmp_path / "site"
    monkeypatch.delenv(DISABLE, raising=False)

    def install(fmt: str) -> None:
        about = site / f"{NAME}-1.2.dist-info"
        about.mkdir(parents=True)
        expression, _, more = fmt.partition("\n\n")
        (site / f"{NAME}.py").write_text(dedent(CODE).replace("FORMAT", expression) + more)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.2\n")
        (about / "entry_points.txt").write_text(f"[spec_convert]\n{NAME} = {NAME}\n")
        monkeypatch.syspath_prepend(site)
        registry.cache_clear()

    yield install
    sys.modules.pop(NAME, None)
    monkeypatch.undo()  # its folder leaves the path before the plugins are asked for again
    registry.cache_clear()
