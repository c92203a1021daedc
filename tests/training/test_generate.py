"""`spec-convert generate` on the small verifier: what lands on the disk, what is said, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from spec_convert.cli import run
from spec_convert.evaluation.verifier_model import load_model
from spec_convert.training.capture import generating
from spec_convert.training.capture.final_norm import final_norm
from spec_convert.training.store.reading import open_store
from spec_convert.verifier import open_verifier

from .small import HIDDEN, LAYERS, random_samples, write_prepared

LENGTHS = [5, 17, 30, 40, 17, 9, 33, 2]
TOKENS = sum(LENGTHS)


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def data(verifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("data") / "prepared", verifier, random_samples(LENGTHS)).folder


@pytest.fixture
def generate(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`spec-convert generate DATA tmp_path/out --engine transformers --layers 1,3,6`, and what is added."""

    def call(*args: object, layers: str = "1,3,6", engine: str = "transformers") -> Said:
        flags = ["--engine", engine] if engine else []
        code = run(["generate", str(data), str(tmp_path / "out"), "--layers", layers, *flags, *map(str, args)])
        return Said(code, *capfd.readouterr())

    return call


def test_the_states_are_those_of_the_verifier_and_the_last_ones_before_its_norm(
    generate: Any, verifier: Path, tmp_path: Path
) -> None:
    assert generate("--dtype", "float32", "--shard-size", "40KB").code == 0
    model = load_model(str(verifier), revision=None, dtype="float32", device="cpu").eval()
    norm, store = final_norm(open_verifier(verifier)), open_store(tmp_path / "out")
    assert len(store) == len(LENGTHS)
    assert len(store.manifest.shards) > 3
    for sample in store:
        with torch.no_grad():
            expected = model(sample.input_ids[None], output_hidden_states=True).hidden_states
        assert sample.hidden_states is not None
        for place, layer in enumerate((1, 3)):
            torch.testing.assert_close(sample.hidden_states[:, place], expected[layer][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm(sample.hidden_states[:, 2]), expected[LAYERS][0], rtol=1e-4, atol=1e-5)


def test_bfloat16_is_stored_and_the_bytes_are_those_of_the_states(generate: Any, tmp_path: Path) -> None:
    said = generate("--json")
    told = json.loads(said.out)
    assert told["state_bytes_per_token"] == 3 * HIDDEN * 2
    assert 1 < told["bytes_per_token"] / told["state_bytes_per_token"] < 1.1
    assert (told["samples"], told["tokens"], told["new_tokens"]) == (len(LENGTHS), TOKENS, TOKENS)
    assert told["tokens_per_second"] == pytest.approx(TOKENS / told["seconds"], rel=0.01)
    assert all(sample.hidden_states.dtype == torch.bfloat16 for sample in open_store(tmp_path / "out"))


def test_it_says_what_it_does_on_stderr_and_what_came_of_it_on_stdout(generate: Any) -> None:
    said = generate()
    assert f"8 samples, {TOKENS} tokens: 0.1 MB of states in 1 shards" in said.err
    assert f"tokens      {TOKENS} in 1 shards" in said.out
    assert "tokens/s" in said.out
    again = generate()
    assert "nothing is left to do" in again.err
    assert "speed       everything was there already" in again.out


def test_packed_rows_give_the_same_states_as_padded_ones(generate: Any, tmp_path: Path) -> None:
    generate("--dtype", "float32")
    padded = open_store((tmp_path / "out").rename(tmp_path / "padded"))
    generate("--dtype", "float32", "--batching", "packed", "--batch-tokens", 50)
    for one, other in zip(padded, open_store(tmp_path / "out"), strict=True):
        torch.testing.assert_close(one.hidden_states, other.hidden_states, rtol=1e-4, atol=1e-5)


def test_the_communitys_files_hold_the_same_samples(generate: Any, tmp_path: Path) -> None:
    generate("--shard-size", "10KB")
    store = open_store((tmp_path / "out").rename(tmp_path / "shards"))
    assert generate("--shard-size", "10KB", "--layout", "pt").code == 0
    assert len(list((tmp_path / "out").glob("data_*.pt"))) == len(LENGTHS)
    for number, sample in enumerate(store):
        file = torch.load(tmp_path / "out" / f"data_{number}.pt", weights_only=True)
        assert torch.equal(file["input_ids"], sample.input_ids)
        assert torch.equal(torch.stack(file["hidden_states"], dim=1), sample.hidden_states)
    assert "nothing is left to do" in generate("--shard-size", "10KB", "--layout", "pt").err


def test_the_layers_are_by_default_three_for_the_draft_and_the_last(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Six layers are too few for that default, which is said with what to type."""
    from spec_convert.serving.capture import default_layers

    assert run(["generate", str(data), str(tmp_path / "out"), "--engine", "transformers"]) == 2
    assert "name the layers: --layers 1,6" in capfd.readouterr().err
    assert default_layers(30) == (2, 15, 27, 30)


def test_the_verifier_is_by_default_that_of_the_data(generate: Any, verifier: Path, tmp_path: Path) -> None:
    generate()
    assert open_store(tmp_path / "out").manifest.made_with["verifier"] == str(verifier)


def test_the_model_computes_in_the_dtype_of_its_weights(generate: Any, tmp_path: Path) -> None:
    generate()
    assert open_store(tmp_path / "out").manifest.request["compute_dtype"] == "float32"
    said = generate("--compute-dtype", "bfloat16")
    assert said.code == 2
    assert "its compute_dtype is 'float32', not 'bfloat16'" in said.err


@pytest.mark.parametrize(("found", "engine"), [("0.32.0", "vllm"), (None, "transformers")])
def test_vllm_is_the_engine_where_it_is_installed(
    generate: Any, monkeypatch: pytest.MonkeyPatch, found: str | None, engine: str
) -> None:
    monkeypatch.setattr(generating, "installed", lambda: found)
    monkeypatch.setattr(
        generating, "run_capture", lambda *_, made_with, **__: pytest.fail(f"with {made_with['engine']}")
    )
    with pytest.raises(pytest.fail.Exception, match=f"with {engine}"):
        generate(engine="")


@pytest.mark.parametrize(
    ("engine", "flags"),
    [
        ("transformers", ["--llm-arg", "max_num_seqs=4"]),
        ("transformers", ["--tensor-parallel-size", "2"]),
        ("transformers", ["--verbose"]),
        ("vllm", ["--batch-tokens", "64"]),
        ("vllm", ["--batching", "packed"]),
        ("vllm", ["--device", "cpu"]),
    ],
)
def test_a_flag_of_the_other_engine_is_refused(
    generate: Any, engine: str, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generating, "require_vllm", lambda: "0.32.0")
    said = generate(*flags, engine=engine)
    assert said.code == 2
    assert f"{flags[0]} does nothing in the engine {engine}" in said.err


def test_a_text_that_leaves_vllm_no_room_for_an_answer_is_refused_before_its_start(
    verifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The small verifier reads 1,024 tokens, and all of them with transformers."""
    write_prepared(tmp_path / "long", verifier, random_samples([3, 1024]))
    words = ["generate", str(tmp_path / "long"), str(tmp_path / "out"), "--layers", "1,6", "--engine"]
    monkeypatch.setattr(generating, "require_vllm", lambda: "0.32.0")
    assert run([*words, "vllm"]) == 2
    said = capfd.readouterr().err
    assert "sample 1 of " in said
    assert "has 1,024 tokens, and " in said
    assert "reads at most 1,023, since vLLM must be able to add one" in said
    assert "--seq-length 1023" in said
    assert not (tmp_path / "out").exists()
    assert run([*words, "transformers"]) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--shard-size", "plenty"], "'plenty' is no size, such as 256MB"),
        (["--shard-size", "0"], "is no size"),
        (["--layers", "2,x"], "'2,x' is no list of layer numbers like"),
        (["--device", "meta"], "there is no device meta: Cannot copy out of meta tensor"),
        (["--layers", "6,1"], "are not ascending boundary ids from 0 to 6"),
    ],
)
def test_what_cannot_be_read_is_refused(generate: Any, flags: list[str], words: str) -> None:
    said = generate(*flags)
    assert said.code == 2
    assert words in said.err


def test_data_that_is_none_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", str(tmp_path), str(tmp_path / "out"), "--engine", "transformers"]) == 2
    assert "has no manifest.json" in capfd.readouterr().err


def test_what_vllm_is_told_to_compute_is_part_of_the_request(
    verifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Mapping[str, str]] = []

    def run(request: object, open_engine: object, *, made_with: Mapping[str, str], scratch_shards: int) -> None:
        told.append(made_with)

    monkeypatch.setattr(generating, "run_capture", run)
    monkeypatch.setattr(generating, "require_vllm", lambda: "0.32.0")
    data = write_prepared(tmp_path / "prepared", verifier, random_samples([5])).folder
    for args in ({"max_num_seqs": 4}, {"quantization": "fp8", "max_num_seqs": 4}):
        generating.generate(data, tmp_path / "out", engine="vllm", layer_ids=(2, 6), llm_args=args)
    assert [one.get("llm_args") for one in told] == [None, '{"quantization": "fp8"}']
