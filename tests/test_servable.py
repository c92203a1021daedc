"""Any draft becomes a unified directory that an engine reads as it was meant: itself, or a conversion that is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import spec_convert
from spec_convert import plugins
from spec_convert import servable as module
from spec_convert.conversion import convert
from spec_convert.errors import Refused, Unreadable, UsageError
from spec_convert.registry import registry
from spec_convert.servable import Servable, cache_folder, servable

from .hub.conftest import hub  # noqa: F401  the Hub of tests/hub
from .hub.server import FakeHub
from .tiny import Tiny

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


def edit(folder: Path, **changes: Any) -> Path:
    """Change keys of a config.json; ``key=...`` (an ellipsis) removes one."""
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def edit_envelope(folder: Path, **changes: Any) -> Path:
    """The same for the verifier that a unified config.json names."""
    envelope = json.loads((folder / "config.json").read_text())["speculators_config"]
    return edit(folder, speculators_config=envelope | {"verifier": envelope["verifier"] | changes})


def bytes_of(folder: Path | str, *names: str) -> dict[str, bytes]:
    return {name: (Path(folder) / name).read_bytes() for name in names or ("config.json", "model.safetensors")}


# A unified directory


def test_a_unified_directory_is_itself(eagle3: Any, conversions: Conversions, cache: Path) -> None:
    made = eagle3().convert(speculative_tokens=5)
    found = servable(made.output)
    assert (found.draft, found.verifier.name, found.own_verifier) == (
        str(made.output), made.config["speculators_config"]["verifier"]["name_or_path"], True,
    )  # fmt: skip
    assert found.speculative_tokens == 5
    assert conversions == []
    assert not cache.exists()


@pytest.mark.parametrize("kind", ["eagle", "eagle3", "mlp", "old_library"])
def test_every_type_that_we_write_is_taken_as_it_is(
    kind: str, request: pytest.FixtureRequest, conversions: Conversions
) -> None:
    made = request.getfixturevalue(kind)().convert()
    assert servable(made.output).draft == str(made.output)
    assert conversions == []


def test_another_verifier_may_be_given(eagle: Any, make_verifier: Any) -> None:
    found = servable(eagle().convert().output, verifier=make_verifier("other"))
    assert found.verifier.name.endswith("/other")
    assert not found.own_verifier


def test_the_same_verifier_in_other_words_is_its_own(
    eagle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = eagle().convert().output
    monkeypatch.chdir(tmp_path)
    assert servable(output, verifier="./verifier/").own_verifier


def test_a_verifier_named_by_a_relative_path_is_not_left_to_the_server(
    eagle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = servable(edit_envelope(eagle().convert().output, name_or_path="verifier"))
    assert found.verifier.name == str(tmp_path / "verifier")
    assert not found.own_verifier


def test_a_directory_that_leaves_a_fact_to_the_server_is_converted(eagle3: Any, conversions: Conversions) -> None:
    output = edit(eagle3().convert().output, norm_output=..., fc_norm=...)
    found = servable(output)
    assert conversions == [str(output)]
    assert json.loads((Path(found.draft) / "config.json").read_text())["norm_output"] is False


@pytest.mark.parametrize(
    ("named", "beside"), [("model.safetensors", "other.safetensors"), (".", "optimizer.safetensors")]
)
def test_weights_beside_the_ones_that_count_are_not_served_too(
    eagle: Any, conversions: Conversions, named: str, beside: str
) -> None:
    output = eagle().convert().output
    save_file(load_file(output / "model.safetensors"), output / beside)
    found = servable(output / named)
    assert conversions == [str(output / named)]
    assert [path.name for path in Path(found.draft).glob("*.safetensors")] == ["model.safetensors"]
    assert bytes_of(found.draft) == bytes_of(output)


def test_a_broken_unified_directory_is_refused_before_a_server_takes_it(eagle: Any) -> None:
    output = eagle().convert().output
    tensors = load_file(output / "model.safetensors")
    del tensors["fc.weight"]
    save_file(tensors, output / "model.safetensors")
    with pytest.raises(Refused, match=r"fc\.weight"):
        servable(output)


# The cache


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


# What cannot be served


def test_a_draft_that_names_no_verifier_asks_for_one(eagle: Any) -> None:
    with pytest.raises(UsageError, match="does not say which model it was trained for") as problem:
        servable(eagle().write())
    assert "--verifier" in problem.value.hint


def test_a_verifier_that_has_moved_is_asked_for(eagle: Any, tmp_path: Path) -> None:
    made = eagle().convert()
    (tmp_path / "verifier").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=f"{made.output} names a verifier that is not there: .*/verifier") as problem:
        servable(made.output)
    assert problem.value.hint == "say where it is: --verifier BASE"
    assert servable(made.output, verifier=tmp_path / "elsewhere").verifier.name == str(tmp_path / "elsewhere")


def test_a_verifier_that_is_not_there_is_named_as_it_was_given(eagle: Any) -> None:
    with pytest.raises(Unreadable, match="no/where/at/all: is no file or folder"):
        servable(eagle().write(), verifier="no/where/at/all")


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize(("key", "value"), [("hidden_size", 24), ("vocab_size", 40)])
def test_a_draft_that_does_not_fit_is_a_usage_error(
    eagle: Any, make_verifier: Any, key: str, value: int, unified: bool
) -> None:
    draft = eagle()
    source = draft.convert().output if unified else draft.write()
    with pytest.raises(UsageError, match=rf"does not fit .*/other: its {key} is {value}") as problem:
        servable(source, verifier=make_verifier("other", **{key: value}))
    assert "--verifier" in problem.value.hint


def test_a_verifier_with_too_few_layers_does_not_serve_unnoticed(eagle3: Any, make_verifier: Any) -> None:
    with pytest.raises(Refused, match="layer"):
        servable(eagle3().convert().output, verifier=make_verifier("flat", num_hidden_layers=2))


@pytest.mark.parametrize("shadowed", ["org/unified", "org/base"])
def test_a_folder_with_the_name_of_a_repository_would_be_taken_instead(
    hub: FakeHub,  # noqa: F811
    eagle3: Any,
    shadowed: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draft = eagle3()
    hub.publish("org/base", draft.verifier)
    hub.publish("org/unified", draft.convert(verifier="org/base").output)
    monkeypatch.chdir(tmp_path)
    assert servable("hf://org/unified", verifier="hf://org/base").draft == "hf://org/unified"
    (tmp_path / shadowed).mkdir(parents=True)
    with pytest.raises(UsageError, match=f"engines would take the folder {shadowed} here") as problem:
        servable("hf://org/unified", verifier="hf://org/base")
    assert problem.value.hint == "run this from another folder"


def test_what_needs_a_flag_is_sent_to_convert(eagle3: Any) -> None:
    output = edit(eagle3().convert().output, norm_before_residual=...)
    with pytest.raises(Refused) as refused:
        servable(output)
    finding = next(finding for finding in refused.value.findings if finding.rule == "norm-before-residual-unknown")
    assert "--no-norm-before-residual" in finding.hint
    assert f"`spec-convert convert {output} OUTPUT --verifier BASE` takes such flags" in finding.hint
