"""With HF_HUB_OFFLINE=1 the cache of earlier runs is the Hub."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from spec_convert.errors import Unreadable
from spec_convert.hub import HubRepo

from .server import FakeHub


@pytest.mark.parametrize("revision", [None, "v1", "sha"])
def test_what_was_downloaded_before_is_found_by_the_same_name(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    sha = hub.publish("org/draft", {"config.json": b"{}", "README.md": b"hello"}, ref=revision or "main")
    revision = sha if revision == "sha" else revision
    HubRepo("org/draft", revision).path("config.json")
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repo = HubRepo("org/draft", revision)
    assert (repo.revision, dict(repo.sizes())) == (sha, {"config.json": 2})
    assert repo.path("config.json").read_bytes() == b"{}"
    assert not hub.requests


def test_what_was_never_downloaded_is_refused_with_the_way_out(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish("org/draft", {"config.json": b"{}"})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unreadable) as refusal:
        HubRepo("org/draft", None)
    assert refusal.value.finding.rule == "hub-no-network"
    assert "Unset HF_HUB_OFFLINE" in refusal.value.hint
