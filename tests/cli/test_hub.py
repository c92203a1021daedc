"""Hub ids on the command line: looked at without a download, converted with only the files that are needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert.hub import BLOCK

VOCABULARY = 40_000  # makes the embedding, and so the weights, much larger than a block


@pytest.fixture
def draft(eagle: Any) -> Any:
    big = eagle(vocab_size=VOCABULARY)
    big.tensors["embed_tokens.weight"] = torch.ones(VOCABULARY, 16)
    return big


@pytest.fixture
def published(hub: Any, draft: Any) -> str:
    """The draft as `org/draft`, tagged v1, with what repositories hold besides; returns the commit."""
    files = {path.name: path.read_bytes() for path in draft.write().iterdir()}
    hub.publish("org/draft", {"README.md": b"An older draft"})
    return hub.publish("org/draft", files | {"README.md": b"A draft", "optimizer.pt": bytes(10 * BLOCK)}, ref="v1")


@pytest.mark.parametrize("command", ["detect", "inspect", "validate"])
@pytest.mark.parametrize("source", ["org/draft@v1", "hf://org/draft@v1"])
@pytest.mark.usefixtures("published")
def test_looking_at_an_id_reads_headers_only(cli: Any, hub: Any, command: str, source: str) -> None:
    ran = cli(command, source)
    assert (ran.code, ran.err) == (0, "")
    assert hub.served() < 2 * BLOCK < VOCABULARY * 16


def test_the_revision_can_be_a_flag(cli: Any, hub: Any, published: str) -> None:
    answer = cli("detect", "org/draft", "--revision", "v1", "--json").json
    assert (answer["source"], answer["revision"]) == ("org/draft", published)
    both = cli("detect", "org/draft@v1", "--revision", "main")
    assert both.code == 2
    assert "Give the revision once" in both.err


def test_an_id_and_a_folder_give_the_same_answer(cli: Any, published: str, draft: Any) -> None:
    here, there = cli("detect", draft.folder, "--json").json, cli("detect", "org/draft@v1", "--json").json
    told = {"source", "revision"}
    assert {k: v for k, v in here.items() if k not in told} == {k: v for k, v in there.items() if k not in told}


def test_a_conversion_downloads_only_what_it_needs(
    cli: Any, hub: Any, published: str, make_verifier: Any, tmp_path: Path
) -> None:
    base = make_verifier("base", vocab_size=VOCABULARY)
    hub.publish("org/base", {path.name: path.read_bytes() for path in base.iterdir()})
    ran = cli("convert", "org/draft@v1", tmp_path / "out", "--verifier", "org/base")
    assert ran.code == 0
    files = {request.path.rpartition("/")[2] for request in hub.asked() if "/resolve/" in request.path}
    assert files == {"config.json", "model.safetensors"}
    assert not [r for r in hub.asked("model.safetensors") if "/org/base/" in r.path]


def test_the_provenance_names_the_commits(
    cli: Any, hub: Any, published: str, make_verifier: Any, tmp_path: Path
) -> None:
    base = make_verifier("base", vocab_size=VOCABULARY)
    commit = hub.publish("org/base", {"config.json": (base / "config.json").read_bytes()})
    cli("convert", "hf://org/draft@v1", tmp_path / "out", "--verifier", "hf://org/base@main")
    told = json.loads((tmp_path / "out" / "conversion.json").read_text())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert told["source"]["revision"] == published
    assert told["verifier"] == {"id": "org/base", "revision": commit}
    assert config["speculators_config"]["verifier"]["name_or_path"] == "org/base"


def test_the_same_draft_from_the_hub_and_from_a_folder_gives_the_same_weights(
    cli: Any, published: str, draft: Any, make_verifier: Any, tmp_path: Path
) -> None:
    base = make_verifier("base", vocab_size=VOCABULARY)
    cli("convert", "org/draft@v1", tmp_path / "remote", "--verifier", base)
    cli("convert", draft.folder, tmp_path / "local", "--verifier", base)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "remote" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_a_folder_of_the_same_name_wins_unless_hf_is_said(
    cli: Any, published: str, eagle3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org").mkdir()
    eagle3().write().rename(tmp_path / "org" / "draft")
    monkeypatch.chdir(tmp_path)
    assert cli("detect", "org/draft", "--json").json["format"] == "eagle3"
    assert cli("detect", "hf://org/draft@v1", "--json").json["format"] == "eagle"


# huggingface_hub 2.4 uploads in a way that its own HTTP library warns about.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_the_result_can_be_pushed(
    cli: Any, hub: Any, eagle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_member")
    draft, flags = eagle(), ("--push-to-hub", "member/converted", "--json")
    ran = cli("convert", draft.write(), tmp_path / "out", "--verifier", draft.verifier, *flags)
    assert ran.code == 0
    repo = hub.repos["member/converted"]
    assert repo.private
    assert {"config.json", "model.safetensors", "conversion.json"} <= set(repo.commits[repo.refs["main"]])
    assert ran.json["pushed_to"].endswith(repo.refs["main"])


def test_a_push_that_cannot_work_is_said_before_the_conversion(cli: Any, hub: Any, eagle: Any, tmp_path: Path) -> None:
    draft = eagle()
    ran = cli("convert", draft.write(), tmp_path / "out", "--verifier", draft.verifier, "--push-to-hub", "me/there")
    assert ran.code == 2
    assert "nobody is signed in" in ran.err
    assert not (tmp_path / "out").exists()


def test_a_push_that_fails_leaves_the_result_and_says_so(
    cli: Any, hub: Any, eagle: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    draft = eagle()
    flags = ("--verifier", draft.verifier, "--push-to-hub", "me/there", "--json")
    ran = cli("convert", draft.write(), tmp_path / "out", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert f"{tmp_path / 'out'} is written but not pushed: me/there: the Hub answers 403" in ran.err
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_a_process_finds_the_hub_in_its_environment(process: Any, hub: Any, published: str, tmp_path: Path) -> None:
    ran = process("detect", "org/draft@v1", "--json", **hub.environment(tmp_path / "home"))
    assert ran.err == ""
    assert ran.json["revision"] == published
