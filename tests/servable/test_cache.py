"""A draft in another layout is converted once and kept, until anything that it was made of has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

import spec_convert
from spec_convert import plugins
from spec_convert import servable as module
from spec_convert.conversion import convert
from spec_convert.errors import UsageError
from spec_convert.registry import registry
from spec_convert.servable import Servable, cache_folder, servable

from ..tiny import Tiny
from .conftest import Conversions
from .folders import bytes_of, edit


def test_a_native_draft_is_converted_once_and_kept(eagle: Any, conversions: Conversions, cache: Path) -> None:
    draft = eagle()
    draft.write()
    first, again = (servable(draft.folder, verifier=draft.verifier) for _ in range(2))
    assert first.draft == again.draft
    assert Path(first.draft).parent == cache
    assert conversions == [str(draft.folder)]
    assert first.own_verifier
    assert bytes_of(first.draft) == bytes_of(draft.convert().output)


def test_another_spelling_of_the_folder_finds_the_same_conversion(
    eagle: Any, conversions: Conversions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = eagle()
    draft.write()
    (tmp_path / "link").symlink_to(draft.folder)
    monkeypatch.chdir(draft.folder)
    spellings = (draft.folder, ".", "../draft/", tmp_path / "link")
    assert len({servable(source, verifier=draft.verifier).draft for source in spellings}) == 1
    assert len(conversions) == 1


def touch(path: Path) -> None:
    """Another time of change, whatever the clock does."""
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


CHANGES: dict[str, Callable[[Tiny], object]] = {
    "its weights": lambda draft: touch(draft.folder / "model.safetensors"),
    "its config": lambda draft: edit(draft.folder, rope_theta=1234.0),
    "a new file beside them": lambda draft: (draft.folder / "generation_config.json").write_text("{}"),
    "its verifier's config": lambda draft: edit(draft.verifier, torch_dtype="bfloat16"),
    "its verifier's weights": lambda draft: touch(draft.verifier / "model.safetensors"),
    "its folder": lambda draft: setattr(draft, "folder", draft.folder.rename(draft.folder.with_name("moved"))),
    "its verifier's folder": lambda draft: setattr(
        draft, "verifier", draft.verifier.rename(draft.verifier.with_name("moved"))
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_converts_again(what: str, eagle: Any, conversions: Conversions) -> None:
    draft = eagle()
    before = servable(draft.write(), verifier=draft.verifier)
    CHANGES[what](draft)
    after = servable(draft.folder, verifier=draft.verifier)
    assert after.draft != before.draft
    assert len(conversions) == 2


def test_another_release_converts_again(eagle: Any, conversions: Conversions, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = eagle()
    draft.write()
    servable(draft.folder, verifier=draft.verifier)
    monkeypatch.setattr(module, "version", lambda name: version(name) + "1")
    servable(draft.folder, verifier=draft.verifier)
    assert len(conversions) == 2


@pytest.mark.parametrize("which", ["the package", "its plugins", "a third party's format"])
def test_a_change_of_the_code_converts_again(
    which: str, eagle: Any, conversions: Conversions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an edit of an editable installation, whose version stays the same."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "mapping.py").write_text("")
    if which == "a third party's format":
        monkeypatch.setattr(sys.modules[registry()["eagle"].describe.__module__], "__file__", str(code / "mapping.py"))
    else:
        monkeypatch.setattr({"the package": spec_convert, "its plugins": plugins}[which], "__file__", f"{code}/x.py")
    draft = eagle()
    draft.write()
    for _ in range(2):
        servable(draft.folder, verifier=draft.verifier)
    assert len(conversions) == 1
    touch(code / "mapping.py")
    servable(draft.folder, verifier=draft.verifier)
    assert len(conversions) == 2


KILLED = """
import os, sys
from spec_convert import staging
from spec_convert.servable import servable
staging._exchange = lambda *places: os._exit(9)
servable(sys.argv[1], verifier=sys.argv[2])
"""


def test_a_conversion_that_was_killed_is_made_again(eagle: Any, conversions: Conversions, cache: Path) -> None:
    draft = eagle()
    draft.write()
    killed = subprocess.run([sys.executable, "-c", KILLED, draft.folder, draft.verifier], check=False)
    assert killed.returncode == 9
    assert [path.name for path in cache.iterdir() if not path.name.startswith(".")] == []
    found = servable(draft.folder, verifier=draft.verifier)
    assert len(conversions) == 1
    assert bytes_of(found.draft) == bytes_of(draft.convert().output)


def test_two_at_once_convert_once_and_the_second_waits(eagle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = eagle()
    draft.write()
    converting, waiting = Event(), Event()
    calls: list[str] = []
    found: list[Servable] = []

    def slow(source: str, *args: Any, **flags: Any) -> Any:
        calls.append(source)
        converting.set()
        assert waiting.wait(60), "the second does not wait"
        return convert(source, *args, **flags)

    def say(line: str) -> None:
        if line.startswith("Waiting for another process"):
            waiting.set()

    def serve() -> None:
        found.append(servable(draft.folder, verifier=draft.verifier))

    monkeypatch.setattr(module, "convert", slow)
    monkeypatch.setattr(module, "say", say)
    first, second = Thread(target=serve), Thread(target=serve)
    first.start()
    assert converting.wait(60)
    second.start()
    first.join(60)
    second.join(60)
    assert len(calls) == 1
    assert len(found) == 2
    assert found[0].draft == found[1].draft


def test_the_second_converts_when_the_first_could_not(eagle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = eagle()
    draft.write()

    def full(*args: Any, **flags: Any) -> Any:
        raise UsageError("cannot write: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "convert", full)
        with pytest.raises(UsageError, match="No space left"):
            servable(draft.folder, verifier=draft.verifier)
    assert servable(draft.folder, verifier=draft.verifier).own_verifier


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(
    eagle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = eagle()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPEC_CONVERT_CACHE", str(tmp_path / "file" / "drafts"))
    with pytest.raises(UsageError, match=f"cannot keep a converted draft in {tmp_path}/file/drafts") as problem:
        servable(draft.write(), verifier=draft.verifier)
    assert "set SPEC_CONVERT_CACHE" in problem.value.hint


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"SPEC_CONVERT_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"SPEC_CONVERT_CACHE": "~/a"}, "/home/me/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/spec_convert/drafts"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/spec_convert/drafts"),
        ({}, "/home/me/.cache/spec_convert/drafts"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SPEC_CONVERT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (environment | {"HOME": "/home/me"}).items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_warnings_of_a_conversion_are_not_lost(eagle: Any, said: list[str]) -> None:
    draft = eagle(num_hidden_layers=3)
    servable(draft.write(), verifier=draft.verifier)
    assert [line for line in said if line.endswith("[layer-count-differs]")]
