"""Each way in which the Hub can fail is one finding that says what to type next."""

from __future__ import annotations

import pytest
from huggingface_hub import constants

from spec_convert.errors import Unreadable
from spec_convert.findings import Finding
from spec_convert.hub import BLOCK, HubRepo

from .server import MEMBER, STRANGER, FakeHub

WEIGHTS = {"config.json": b"{}", "model.safetensors": bytes(4 * BLOCK)}


def read(repo_id: str, revision: str | None, file: str | None) -> None:
    repo = HubRepo(repo_id, revision)
    assert file, "the repository itself should have been refused"
    with repo.open(file) as stream:
        stream.read(BLOCK + 1)


def refused(repo_id: str, revision: str | None = None, file: str | None = None) -> Finding:
    with pytest.raises(Unreadable) as refusal:
        read(repo_id, revision, file)
    finding = refusal.value.finding
    assert "\n" not in finding.message + finding.hint
    return finding


def test_an_unknown_repository_asks_for_the_spelling_and_a_token(hub: FakeHub) -> None:
    finding = refused("org/typo")
    assert (finding.rule, finding.where) == ("hub-not-found", "org/typo@main")
    assert "nobody is signed in" in finding.message
    assert "spelling" in finding.hint
    assert "hf auth login" in finding.hint


def test_a_private_repository_says_that_the_token_may_not_see_it(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish("org/private", WEIGHTS, private=True)
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    finding = refused("org/private")
    assert finding.rule == "hub-not-found"
    assert "your token may not see it" in finding.message


@pytest.mark.parametrize("token", ["", STRANGER])
def test_a_gated_repository_names_the_page_with_its_conditions(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    hub.publish("org/gated", WEIGHTS, gated=True)
    monkeypatch.setenv("HF_TOKEN", token)
    finding = refused("org/gated", file="model.safetensors")
    assert finding.rule == "hub-gated"
    assert f"{hub.endpoint}/org/gated," in finding.hint


def test_a_download_from_a_gated_repository_says_the_same(hub: FakeHub) -> None:
    hub.publish("org/gated", WEIGHTS, gated=True)
    with pytest.raises(Unreadable) as refusal:
        HubRepo("org/gated", None).path("model.safetensors")
    assert refusal.value.finding.rule == "hub-gated"


def test_a_gated_repository_opens_for_who_accepted_its_conditions(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish("org/gated", WEIGHTS, gated=True)
    monkeypatch.setenv("HF_TOKEN", MEMBER)
    assert HubRepo("org/gated", None).path("model.safetensors").stat().st_size == 4 * BLOCK


def test_a_wrong_token_is_not_taken_for_a_wrong_name(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish("org/private", WEIGHTS, private=True)
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    finding = refused("org/private")
    assert finding.rule == "hub-unauthorised"
    assert "Invalid credentials" in finding.message


def test_an_unknown_revision_is_told_apart_from_an_unknown_repository(hub: FakeHub) -> None:
    hub.publish("org/draft", WEIGHTS)
    finding = refused("org/draft", "v9")
    assert (finding.rule, finding.where) == ("hub-not-found", "org/draft@v9")
    assert "no such branch, tag or commit" in finding.message


def test_a_file_that_the_commit_does_not_have_is_named(hub: FakeHub) -> None:
    hub.publish("org/draft", WEIGHTS)
    assert "model-00001.safetensors" in refused("org/draft", file="model-00001.safetensors").message


@pytest.mark.usefixtures("unreachable")
def test_without_a_network_the_hint_offers_the_cache_and_a_folder() -> None:
    finding = refused("org/draft")
    assert finding.rule == "hub-no-network"
    assert "the connection to http://127.0.0.1" in finding.message
    assert "HF_HUB_OFFLINE=1" in finding.hint


def test_a_hub_that_never_answers_is_given_up(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    hub.mood = "silent"
    assert "timed out" in refused("org/draft").message


def test_a_hub_that_is_down_is_quoted(hub: FakeHub) -> None:
    hub.mood = "unavailable"
    finding = refused("org/draft")
    assert finding.rule == "hub-transfer"
    assert "503" in finding.message


def test_a_login_page_in_place_of_the_hub_is_noticed(hub: FakeHub) -> None:
    hub.mood = "web page"
    finding = refused("org/draft")
    assert finding.rule == "hub-transfer"
    assert "no answer of a Hub" in finding.message
    assert "HF_ENDPOINT" in finding.hint


@pytest.mark.parametrize(
    ("mood", "message"),
    [
        ("no ranges", "ignores the range request"),
        ("short", "were asked for"),
        ("truncated", "broke off"),
    ],
)
def test_a_file_that_does_not_come_as_asked_is_never_used(hub: FakeHub, mood: str, message: str) -> None:
    hub.publish("org/draft", WEIGHTS)
    repo = HubRepo("org/draft", None)
    hub.mood = mood
    with pytest.raises(Unreadable, match=message), repo.open("model.safetensors") as stream:
        stream.read(8)
    assert hub.served() <= 5 * BLOCK


def test_a_small_file_may_come_whole_from_a_server_without_ranges(hub: FakeHub) -> None:
    hub.publish("org/draft", WEIGHTS)
    hub.mood = "no ranges"
    with HubRepo("org/draft", None).open("config.json") as stream:
        assert stream.read() == b"{}"


def test_a_short_interruption_is_bridged_by_the_clients_own_retries(hub: FakeHub) -> None:
    hub.publish("org/draft", WEIGHTS)
    repo = HubRepo("org/draft", None)
    hub.outages = 1
    with repo.open("config.json") as stream:
        assert stream.read() == b"{}"


def test_an_id_with_too_many_parts_is_no_id(hub: FakeHub) -> None:
    finding = refused("https/example/org")
    assert (finding.rule, finding.hint) == ("hub-not-found", "Write the id as org/name.")
