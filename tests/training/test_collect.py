"""`spec-convert collect` against small real HTTP servers that play a capturing vLLM; the real one is in tests/e2e."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from spec_convert.cli import run
from spec_convert.training.capture import server_engine
from spec_convert.training.servers import endpoints
from spec_convert.training.store.reading import open_store
from spec_convert.training.store.sample import Sample

from .capturing import Capturing, states_of
from .servers import Body, Reply, echo, serving
from .small import HIDDEN, random_samples, write_prepared

LAYERS = (2, 3, 6)
LENGTHS = [5, 9, 1, 30, 12, 7, 20, 3, 15, 8]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    pause = endpoints._pause
    monkeypatch.setattr(endpoints, "_pause", lambda attempts: pause(attempts) / 10)
    monkeypatch.setattr(server_engine, "FILE_SECONDS", 0.3)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def prepared(verifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "prepared"
    write_prepared(folder, verifier, random_samples(LENGTHS))
    return folder


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    return folder


@pytest.fixture
def collect(prepared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`collect("--endpoint", url)`: its exit code and what it says on stderr. Shards hold a few samples."""

    def call(*args: object) -> tuple[int, str]:
        # Of 10,000 bytes, or 13 tokens: several shards.
        options = ["--dtype", "float32", "--shard-size", "10KB", "--patience", "5s", *map(str, args)]
        code = run(["collect", str(prepared), str(tmp_path / "out"), *options])
        return code, capfd.readouterr().err

    return call


def require_complete(folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Every sample once, in order, with the states of its own text."""
    store = open_store(folder)
    store.verify()
    assert store.manifest.layers is not None
    assert store.manifest.layers.ids == LAYERS
    samples = random_samples(LENGTHS)
    assert len(store) == len(samples)
    for sample, stored in zip(samples, store, strict=True):
        require_same(sample, stored, dtype)


def require_same(sample: Sample, stored: Sample, dtype: torch.dtype) -> None:
    assert stored.hidden_states is not None
    assert stored.index == sample.index
    assert torch.equal(stored.input_ids, sample.input_ids)
    assert torch.equal(stored.loss_mask, sample.loss_mask)
    assert torch.equal(stored.hidden_states, states_of(sample.input_ids.tolist(), LAYERS, HIDDEN).to(dtype))


def test_states_come_from_several_servers_which_say_what_they_are(
    collect: Any, verifier: Path, storage: Path, tmp_path: Path
) -> None:
    (storage / "other").mkdir()
    one, other = Capturing(storage, LAYERS, HIDDEN), Capturing(storage / "other", LAYERS, HIDDEN)
    with serving(one, model=str(verifier)) as first, serving(other, model=str(verifier)) as second:
        code, err = collect("--endpoint", first.url, "--endpoint", second.url, "--concurrent-requests", 2)
        assert code == 0
        assert "the servers call their model" not in err
        assert first.bodies
        assert second.bodies
        assert len(first.bodies) + len(second.bodies) == 1 + len(LENGTHS)
        assert {body["model"] for body in first.bodies} == {str(verifier)}
    require_complete(tmp_path / "out")
    assert open_store(tmp_path / "out").manifest.request["engine"] == "vllm server"
    assert len(open_store(tmp_path / "out").manifest.shards) > 3
    assert [path.name for path in storage.rglob("*")] == ["other"]


def test_files_are_kept_on_request(collect: Any, storage: Path) -> None:
    with serving(Capturing(storage, LAYERS, HIDDEN)) as server:
        assert collect("--endpoint", server.url, "--keep-files", "--max-samples", 4)[0] == 0
    assert len(list(storage.glob("*.safetensors"))) == 4


def test_a_name_that_is_not_the_verifiers_is_mentioned(collect: Any, storage: Path, verifier: Path) -> None:
    with serving(Capturing(storage, LAYERS, HIDDEN), model="llama") as server:
        _, err = collect("--endpoint", server.url)
    assert f"the servers call their model llama: its states are taken for those of {verifier}" in err


def test_a_server_that_does_not_say_its_layers_is_told(collect: Any, storage: Path, tmp_path: Path) -> None:
    with serving(Capturing(storage, LAYERS, HIDDEN, says_layers=False)) as server:
        code, err = collect("--endpoint", server.url)
        assert code == 2
        assert "the servers do not say which layers they capture" in err
        code, err = collect("--endpoint", server.url, "--layers", "2,6", "--concurrent-requests", 1)
        assert code == 2
        assert "holds states of [5, 3, 64], and those of 5 tokens in 2 layers of the verifier are [5, 2, 64]" in err
        assert collect("--endpoint", server.url, "--layers", "2,3,6")[0] == 0
    require_complete(tmp_path / "out")


def test_other_layers_than_the_servers_are_refused(collect: Any, storage: Path, tmp_path: Path) -> None:
    with serving(Capturing(storage, LAYERS, HIDDEN)) as server:
        code, err = collect("--endpoint", server.url, "--layers", "1,3,6")
    assert code == 2
    assert "the servers capture the layers 2,3,6, not 1,3,6" in err
    assert "spec-convert serve --capture MODEL --layers 1,3,6" in err
    assert not (tmp_path / "out").exists()


def test_a_server_of_several_that_captures_other_layers_is_refused(collect: Any, storage: Path) -> None:
    said = iter([LAYERS, LAYERS])
    capturing = Capturing(storage, LAYERS, HIDDEN)

    def changing(body: Body) -> Reply:
        capturing.layer_ids = next(said, (1, 3, 6))
        return capturing(body)

    with serving(changing) as server:
        code, err = collect("--endpoint", server.url, "--concurrent-requests", 1)
    assert code == 2
    assert "the server captures the layers 1,3,6, not 2,3,6" in err


def test_a_server_that_captures_nothing_is_refused_with_the_command_that_does(collect: Any, tmp_path: Path) -> None:
    with serving(lambda _: Reply({"choices": [], "kv_transfer_params": None}), model="plain") as server:
        code, err = collect("--endpoint", server.url)
    assert code == 2
    assert "the server of plain captures no hidden states" in err
    assert "start it with: spec-convert serve --capture MODEL" in err
    assert not (tmp_path / "out").exists()


def test_a_text_whose_file_never_comes_is_asked_for_again(collect: Any, storage: Path, tmp_path: Path) -> None:
    with serving(Capturing(storage, LAYERS, HIDDEN, lost=4)) as server:
        assert collect("--endpoint", server.url, "--concurrent-requests", 2)[0] == 0
        assert len(server.bodies) == 1 + len(LENGTHS) + 4
    require_complete(tmp_path / "out")


def test_files_that_never_come_are_given_up(collect: Any, storage: Path) -> None:
    with serving(Capturing(storage, LAYERS, HIDDEN, lost=1000)) as server:
        code, err = collect("--endpoint", server.url, "--patience", "1s")
    assert code == 2
    assert "have not come within 0.3 seconds" in err


def test_a_server_that_dies_and_comes_back_loses_and_doubles_nothing(
    collect: Any, storage: Path, tmp_path: Path
) -> None:
    capturing = Capturing(storage, LAYERS, HIDDEN)
    with ExitStack() as servers:
        server = servers.enter_context(serving(capturing))
        asked: list[Body] = []

        def until_it_dies(body: Body) -> Reply:
            asked.append(body)
            if len(asked) < 6:
                return capturing(body)
            if len(asked) == 6:
                threading.Thread(target=server.stop).start()
                again = threading.Timer(0.7, lambda: servers.enter_context(serving(capturing, port=server.port)))
                again.start()
            return Reply()

        server.respond = until_it_dies
        code, err = collect("--endpoint", server.url, "--concurrent-requests", 2)
    assert code == 0, err
    assert f"{server.url} does not answer" in err
    assert f"{server.url} is back" in err
    require_complete(tmp_path / "out")


def test_what_is_given_up_goes_on_with_the_same_command(collect: Any, storage: Path, tmp_path: Path) -> None:
    capturing = Capturing(storage, LAYERS, HIDDEN)
    with serving(echo) as server:

        def until_it_dies(body: Body) -> Reply:
            if len(server.bodies) <= 8:
                return capturing(body)
            threading.Thread(target=server.stop).start()
            return Reply()

        server.respond = until_it_dies
        code, err = collect("--endpoint", server.url, "--concurrent-requests", 1, "--patience", "1s")
        assert code == 2
        assert f"{server.url}: ConnectError" in err
        assert "run the same command" in err
    with serving(capturing) as server:
        code, err = collect("--endpoint", server.url, "--concurrent-requests", 1, "--patience", "1s")
        assert code == 0
        assert "shards are there already" in err
        assert len(server.bodies) < 1 + len(LENGTHS) - 4
    require_complete(tmp_path / "out")


def test_a_folder_that_is_elsewhere_is_refused_until_it_is_named(collect: Any, storage: Path, tmp_path: Path) -> None:
    capturing = Capturing(storage, LAYERS, HIDDEN, named=Path("/nowhere/states"))
    with serving(capturing) as server:
        code, err = collect("--endpoint", server.url)
        assert code == 2
        assert "--storage-as /nowhere/states=LOCAL_DIR" in err
        code, err = collect("--endpoint", server.url, "--storage-as", f"/other={storage}")
        assert code == 2
        assert "which is not in /other" in err
        assert collect("--endpoint", server.url, "--storage-as", f"/nowhere/states={storage}")[0] == 0
    require_complete(tmp_path / "out")


def test_states_of_another_text_are_refused(collect: Any, storage: Path) -> None:
    capturing = Capturing(storage, LAYERS, HIDDEN)
    with serving(lambda body: capturing({**body, "prompt": [*body["prompt"][:-1], 7]})) as server:
        code, err = collect("--endpoint", server.url)
    assert code == 2
    assert "holds the states of another text" in err


def test_a_part_of_the_hidden_size_is_refused(collect: Any, storage: Path) -> None:
    with serving(Capturing(storage, LAYERS, HIDDEN // 2)) as server:
        code, err = collect("--endpoint", server.url, "--concurrent-requests", 1)
    assert code == 2
    assert "[5, 3, 32]" in err
    assert "a part of the hidden size is of no use" in err


def test_what_was_rounded_is_not_stored_as_if_it_were_not(collect: Any, storage: Path) -> None:
    with serving(Capturing(storage, LAYERS, HIDDEN, dtype=torch.bfloat16)) as server:
        code, err = collect("--endpoint", server.url)
    assert code == 2
    assert "holds bfloat16, from which no float32 can be made" in err
    assert "--dtype bfloat16" in err


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_exact_may_be_rounded(collect: Any, storage: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    with serving(Capturing(storage, LAYERS, HIDDEN, dtype=dtype)) as server:
        assert collect("--endpoint", server.url, "--dtype", "bfloat16")[0] == 0
    require_complete(tmp_path / "out", torch.bfloat16)


def test_a_server_that_cannot_write_is_refused_with_its_words(collect: Any, storage: Path) -> None:
    def full(body: Body) -> Reply:
        (storage / "1.error").write_text("OSError: no space left on device")
        path = str(storage / "1.safetensors")
        return Reply({"kv_transfer_params": {"hidden_states_path": path, "layer_ids": [2, 3, 6]}})

    with serving(full) as server:
        code, err = collect("--endpoint", server.url)
    assert code == 2
    assert "no space left on device" in err


def test_a_text_that_the_server_refuses_ends_it_with_the_servers_words(collect: Any, storage: Path) -> None:
    capturing = Capturing(storage, LAYERS, HIDDEN)

    def short(body: Body) -> Reply:
        if len(body["prompt"]) > 20:
            return Reply({"error": {"message": "maximum context length is 20"}}, 400)
        return capturing(body)

    with serving(short) as server:
        code, err = collect("--endpoint", server.url)
    assert code == 2
    assert f"{server.url}/v1/completions: 400 maximum context length is 20" in err


def test_a_text_that_leaves_no_room_for_an_answer_is_refused_before_the_first_request(
    collect: Any, storage: Path, tmp_path: Path
) -> None:
    with serving(Capturing(storage, LAYERS, HIDDEN)) as one, serving(Capturing(storage, LAYERS, HIDDEN)) as other:
        one.context, other.context = 30, 31
        code, err = collect("--endpoint", other.url, "--endpoint", one.url)
        assert code == 2
        assert "sample 3 of " in err
        assert "has 30 tokens, and " in err
        assert "reads at most 29, since vLLM must be able to add one" in err
        assert "--seq-length 29" in err
        assert one.bodies == other.bodies == []
        assert collect("--endpoint", other.url)[0] == 0
    require_complete(tmp_path / "out")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "start one: spec-convert serve --capture MODEL; then --endpoint http://127.0.0.1:8000"),
        (["--endpoint", "localhost:8000"], "`localhost:8000` is no URL of a server"),
        (["--endpoint", "http://x", "--files", "."], "--endpoint and --files are two sources"),
        (["--endpoint", "http://x", "--filter-rank", "0"], "--filter-rank is for --files"),
        (["--files", ".", "--keep-files"], "--keep-files is for servers"),
        (["--files", ".", "--storage-as", "/a=."], "--storage-as is for servers"),
        (["--endpoint", "http://x", "--storage-as", "/a"], "is not of the form SERVER_DIR=LOCAL_DIR"),
        (["--endpoint", "http://x", "--storage-as", "/a=/no/where"], "there is no folder /no/where here"),
        (["--endpoint", "http://x", "--patience", "soon"], "is no time, such as 90s, 10m or 1h"),
    ],
)
def test_a_wrong_word_is_a_usage_error(collect: Any, tmp_path: Path, args: list[str], message: str) -> None:
    code, err = collect(*args)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()
