"""A converted folder goes to the Hub as one commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from spec_convert.errors import Unreadable
from spec_convert.hub import check_push, push

from .server import MEMBER, STRANGER, FakeHub

WEIGHTS = bytes(3 * 2**20)

# huggingface_hub 2.4 uploads in a way that its own HTTP library warns about.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    folder = tmp_path / "converted"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(WEIGHTS)
    return folder


@pytest.fixture(autouse=True)
def signed_in(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", MEMBER)


def test_a_new_repository_is_private_and_holds_the_folder_in_one_commit(hub: FakeHub, converted: Path) -> None:
    url = push(converted, "org/new")
    repo = hub.repos["org/new"]
    assert repo.private
    assert len(repo.commits) == 2  # the first is the one that the Hub makes
    assert url == f"{hub.endpoint}/org/new/commit/{repo.refs['main']}"
    assert {name: repo.commits[repo.refs["main"]][name] for name in ("config.json", "model.safetensors")} == {
        "config.json": b"{}",
        "model.safetensors": WEIGHTS,
    }


def test_an_existing_repository_stays_public_and_keeps_its_card(hub: FakeHub, converted: Path) -> None:
    hub.publish("org/old", {"README.md": b"mine", "config.json": b'{"old": 1}'})
    push(converted, "org/old")
    repo = hub.repos["org/old"]
    assert not repo.private
    assert repo.commits[repo.refs["main"]]["README.md"] == b"mine"
    assert repo.commits[repo.refs["main"]]["config.json"] == b"{}"


def test_old_shards_do_not_stay_beside_new_weights(hub: FakeHub, converted: Path) -> None:
    old = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    hub.publish("org/old", dict.fromkeys(old, b"old"))
    push(converted, "org/old")
    repo = hub.repos["org/old"]
    assert sorted(repo.commits[repo.refs["main"]]) == ["config.json", "model.safetensors"]


def test_a_model_card_goes_along(hub: FakeHub, converted: Path) -> None:
    (converted / "README.md").write_text("---\nlicense: apache-2.0\n---\nA draft.\n")
    push(converted, "org/new")
    repo = hub.repos["org/new"]
    assert b"A draft." in repo.commits[repo.refs["main"]]["README.md"]


def test_weights_that_the_hub_already_has_are_not_sent_again(hub: FakeHub, converted: Path) -> None:
    hub.publish("org/other", {"model.safetensors": WEIGHTS})
    push(converted, "org/new")
    assert not [request for request in hub.requests if request.method == "PUT"]


def test_a_token_that_may_not_write_is_refused(hub: FakeHub, converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    with pytest.raises(Unreadable, match="answers 403") as refusal:
        push(converted, "org/new")
    assert refusal.value.finding.rule == "hub-unauthorised"
    assert not hub.repos


def test_without_a_token_the_push_is_refused_before_any_work(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(Unreadable, match="nobody is signed in") as refusal:
        check_push("org/new")
    assert "hf auth login" in refusal.value.hint
    assert not hub.requests


def test_a_wrong_token_is_noticed_before_any_work(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(Unreadable) as refusal:
        check_push("org/new")
    assert refusal.value.finding.rule == "hub-unauthorised"


def test_an_illegal_name_is_noticed_before_any_work(hub: FakeHub) -> None:
    with pytest.raises(Unreadable, match="no id of the Hub"):
        check_push("org/new/deep")


def test_a_good_token_and_name_may_go_on(hub: FakeHub) -> None:
    check_push("org/new")
