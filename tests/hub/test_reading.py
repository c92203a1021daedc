"""What is read of a repository on the Hub, and how little of it travels."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from itertools import product
from pathlib import Path

import pytest

from spec_convert.hub import BLOCK, HubRepo
from spec_convert.open import open_checkpoint

from .server import FakeHub

WEIGHTS = bytes(range(256)) * 16384  # 4 MiB


def safetensors(**more: bytes) -> bytes:
    tensors = {"fc.weight": WEIGHTS, **more}
    header, end = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [end, end := end + len(data)]}
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(tensors.values())


def draft() -> dict[str, bytes]:
    return {"config.json": b'{"architectures": ["LlamaForCausalLM"]}', "model.safetensors": safetensors()}


def test_the_header_of_a_large_file_costs_one_block(hub: FakeHub) -> None:
    hub.publish("org/draft", draft())
    with HubRepo("org/draft", None).open("model.safetensors") as stream:
        size = int.from_bytes(stream.read(8), "little")
        assert "fc.weight" in json.loads(stream.read(size))
    assert hub.served() == BLOCK < len(WEIGHTS) / 50


def test_a_checkpoint_is_opened_by_its_id_without_downloading_it(hub: FakeHub) -> None:
    sha = hub.publish("org/draft", draft())
    checkpoint = open_checkpoint("org/draft@main")
    assert (checkpoint.shape("fc.weight"), checkpoint.architecture) == ((len(WEIGHTS),), "LlamaForCausalLM")
    assert checkpoint.files.revision == sha
    assert hub.served() < len(WEIGHTS) / 50


def test_one_tensor_of_a_remote_checkpoint_is_read_alone(hub: FakeHub) -> None:
    hub.publish("org/draft", {"model.safetensors": safetensors(vocabulary=bytes(range(100)))})
    assert open_checkpoint("org/draft").read("vocabulary").tolist() == list(range(100))
    assert hub.served() <= 2 * BLOCK


def test_a_file_that_is_opened_twice_is_asked_for_once(hub: FakeHub) -> None:
    hub.publish("org/draft", draft())
    repo = HubRepo("org/draft", None)
    for _ in range(2):
        with repo.open("config.json") as stream:
            json.load(stream)
    assert len(hub.asked("config.json")) == 1


def test_listing_a_repository_reads_no_file(hub: FakeHub) -> None:
    sha = hub.publish("org/draft", draft())
    repo = HubRepo("org/draft", None)
    assert (repo.label, repo.revision) == (f"org/draft@{sha[:7]}", sha)
    assert repo.sizes() == {"config.json": 39, "model.safetensors": len(safetensors())}
    assert len(hub.asked()) == 1


def test_files_in_subfolders_are_not_listed(hub: FakeHub) -> None:
    hub.publish("org/draft", {"config.json": b"{}", "onnx/config.json": b"{}"})
    assert list(HubRepo("org/draft", None).sizes()) == ["config.json"]


def test_any_part_of_a_remote_file_reads_like_the_file_itself(hub: FakeHub) -> None:
    hub.publish("org/draft", {"model.safetensors": WEIGHTS})
    starts = [0, 1, BLOCK - 3, BLOCK, 3 * BLOCK + 7, len(WEIGHTS) - 5]
    with HubRepo("org/draft", None).open("model.safetensors") as stream:
        for start, length in product(starts, [1, 8, BLOCK, 3 * BLOCK + 1]):
            stream.seek(start)
            assert stream.read(length) == WEIGHTS[start : start + length]
            assert stream.tell() == min(start + length, len(WEIGHTS))


def test_a_large_tensor_is_read_without_asking_block_by_block(hub: FakeHub) -> None:
    hub.publish("org/draft", {"model.safetensors": WEIGHTS})
    with HubRepo("org/draft", None).open("model.safetensors") as stream:
        assert stream.read(2**21) == WEIGHTS[: 2**21]
    assert len([request for request in hub.requests if request.host == "cdn"]) == 1


def test_the_directory_of_a_zip_costs_one_block(hub: FakeHub) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        for number in range(30):
            members.writestr(f"archive/data/{number}", WEIGHTS[: 2**17])
    hub.publish("org/draft", {"pytorch_model.bin": archive.getvalue()})
    with HubRepo("org/draft", None).open("pytorch_model.bin") as stream, zipfile.ZipFile(stream) as members:
        assert len(members.namelist()) == 30
    assert hub.served() <= BLOCK


def test_a_read_past_the_end_returns_what_there_is(hub: FakeHub) -> None:
    hub.publish("org/draft", {"config.json": b"{}", "empty.json": b""})
    repo = HubRepo("org/draft", None)
    with repo.open("config.json") as stream, repo.open("empty.json") as empty:
        assert (stream.read(100), stream.read(), empty.read()) == (b"{}", b"", b"")


def test_a_branch_a_tag_and_a_commit_each_give_their_own_files(hub: FakeHub) -> None:
    first = hub.publish("org/draft", {"config.json": b'{"v": 1}'})
    hub.publish("org/draft", {"config.json": b'{"v": 2}'})
    hub.publish("org/draft", {"config.json": b'{"v": 3}'}, ref="v3")
    hub.publish("org/draft", {"config.json": b'{"v": 4}'}, ref="refs/pr/1")
    for revision, version in {None: 2, "main": 2, first: 1, "v3": 3, "refs/pr/1": 4}.items():
        with HubRepo("org/draft", revision).open("config.json") as stream:
            assert json.load(stream) == {"v": version}


def test_a_push_in_the_meantime_does_not_change_what_is_read(hub: FakeHub) -> None:
    hub.publish("org/draft", {"config.json": b'{"v": 1}'})
    repo = HubRepo("org/draft", None)
    hub.publish("org/draft", {"config.json": b'{"v": 22}'})
    with repo.open("config.json") as stream:
        assert json.load(stream) == {"v": 1}
    assert repo.path("config.json").read_bytes() == b'{"v": 1}'


def test_a_downloaded_file_is_read_from_the_cache(hub: FakeHub) -> None:
    hub.publish("org/draft", draft())
    repo = HubRepo("org/draft", None)
    assert repo.path("model.safetensors").read_bytes() == safetensors()
    hub.requests.clear()
    with repo.open("model.safetensors") as stream:
        assert stream.read() == safetensors()
    assert repo.path("model.safetensors").is_file()
    assert not hub.requests


def test_the_token_opens_a_private_repository_and_never_reaches_the_cdn(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_member")
    hub.publish("org/private", draft(), private=True)
    with HubRepo("org/private", None).open("model.safetensors") as stream:
        stream.read(8)
    cdn = [request for request in hub.requests if request.host == "cdn"]
    assert cdn
    assert not any(request.token for request in cdn)


def test_a_process_finds_its_hub_and_its_cache_in_the_environment(hub: FakeHub, tmp_path: Path) -> None:
    hub.publish("org/draft", draft())
    code = (
        "import sys; from spec_convert.hub import HubRepo; repo = HubRepo('org/draft', None); repo.path('config.json');"
        "print(repo.label, sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    home = tmp_path / "elsewhere"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | hub.environment(home), capture_output=True, text=True, check=True
    )
    assert ran.stdout == f"{HubRepo('org/draft', None).label} []\n"
    assert list(home.rglob("config.json"))


def test_the_client_is_loaded_only_when_a_repository_is_opened() -> None:
    code = "import sys, spec_convert.hub; sys.exit('huggingface_hub' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
