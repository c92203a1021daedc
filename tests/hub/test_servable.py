"""Drafts on the Hub made servable: at the commit that was looked at, once, and offline from then on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from spec_convert.errors import Unreadable, UsageError
from spec_convert.servable import servable

from .server import FakeHub


def told(draft: str) -> dict[str, Any]:
    """The provenance of a conversion."""
    provenance: dict[str, Any] = json.loads((Path(draft) / "conversion.json").read_text())
    return provenance


@pytest.mark.parametrize("source", ["org/draft", "hf://org/draft", "org/draft@v1", "hf://org/draft@v1"])
def test_a_native_draft_is_converted_once_at_the_commit_that_was_looked_at(
    hub: FakeHub, eagle: Any, source: str
) -> None:
    draft = eagle()
    commits = {ref: hub.publish("org/draft", draft.write(), ref=ref) for ref in ("main", "v1")}
    first = servable(source, verifier=draft.verifier)
    hub.requests.clear()
    again = servable(source, verifier=draft.verifier)
    assert first == again
    assert not [request for request in hub.asked() if request.host == "cdn" and not request.range]
    assert told(first.draft)["source"]["id"] == source.partition("@")[0]
    assert told(first.draft)["source"]["revision"] == commits["v1" if "@" in source else "main"]


def test_the_revision_may_be_given_apart(hub: FakeHub, eagle: Any) -> None:
    draft = eagle()
    old = hub.publish("org/draft", draft.write(), ref="old")
    hub.publish("org/draft", eagle(layers=2).write())
    found = servable("org/draft", verifier=draft.verifier, revision="old")
    assert told(found.draft)["source"]["revision"] == old


def test_a_push_converts_again(hub: FakeHub, eagle: Any) -> None:
    draft = eagle()
    hub.publish("org/draft", draft.write())
    before = servable("org/draft", verifier=draft.verifier)
    hub.publish("org/draft", draft.set(rope_theta=7.0).write())
    after = servable("org/draft", verifier=draft.verifier)
    assert before.draft != after.draft


def test_what_was_converted_is_found_offline(hub: FakeHub, eagle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = eagle()
    hub.publish("org/draft", draft.write())
    before = servable("org/draft", verifier=draft.verifier)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert servable("org/draft", verifier=draft.verifier) == before
    assert hub.requests == []


def test_a_pinned_verifier_is_the_one_that_the_draft_is_converted_for(
    hub: FakeHub, eagle: Any, make_verifier: Any
) -> None:
    draft = eagle()
    pinned = hub.publish("org/base", draft.verifier, ref="old")
    hub.publish("org/base", make_verifier("wider", hidden_size=24))
    found = servable(draft.write(), verifier="org/base@old")
    assert told(found.draft)["verifier"] == {"id": "org/base", "revision": pinned}
    assert (found.verifier.name, found.verifier.pinned, found.own_verifier) == ("org/base", True, False)


@pytest.mark.parametrize(
    "asked",
    [
        {"source": "org/unified"},
        {"source": "hf://org/unified"},
        {"source": "org/unified@v1"},
        {"source": "org/unified", "revision": "v1"},
    ],
)
def test_a_unified_directory_stays_there(hub: FakeHub, eagle3: Any, cache: Path, asked: dict[str, str]) -> None:
    made = eagle3().convert().output
    for ref in ("main", "v1"):
        hub.publish("org/unified", made, ref=ref)
    expected = "org/unified@v1" if "revision" in asked else asked["source"]
    assert servable(**asked).draft == expected
    assert not cache.exists()
    assert all(request.range for request in hub.asked() if request.host == "cdn")


def test_a_verifier_that_the_hub_does_not_have_is_asked_for(hub: FakeHub, eagle: Any) -> None:
    output = naming(eagle().convert().output, "org/gone")
    with pytest.raises(UsageError, match=r"names a verifier that is not there: .*org/gone") as problem:
        servable(output)
    assert "--verifier" in problem.value.hint


def test_a_hub_that_does_not_answer_is_not_taken_for_a_missing_verifier(hub: FakeHub, eagle: Any) -> None:
    output = naming(eagle().convert().output, "org/base")
    hub.mood = "web page"
    with pytest.raises(Unreadable) as problem:
        servable(output)
    assert problem.value.finding.rule == "hub-transfer"


def naming(folder: Path, verifier: str) -> Path:
    """The same unified directory with another verifier in its config.json."""
    config = json.loads((folder / "config.json").read_text())
    config["speculators_config"]["verifier"]["name_or_path"] = verifier
    (folder / "config.json").write_text(json.dumps(config))
    return folder
