"""The engine of the capture that reads with vLLM: what it hands over and refuses, and a real one against transformers.

Without a mark a stand-in speaks for the other process; its protocol is tested in tests/serving/test_process.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.serving.capture import failure_of
from spec_convert.training.capture import vllm_engine
from spec_convert.training.capture.capturing import capture
from spec_convert.training.capture.engine import Chunk
from spec_convert.training.capture.vllm_engine import AHEAD, FOLDER, VLLMEngine, open_vllm_engine
from spec_convert.training.store.sample import Sample
from spec_convert.verifier import open_verifier

from .small import HIDDEN, LAYERS, random_samples

SHAPE = (2, 8)


class Other:
    """In place of the process: it answers in order, and only what it was sent."""

    def __init__(self, folder: Path, **changes: Tensor) -> None:
        self.folder, self.changes = folder, changes
        self.sent: list[Chunk] = []
        self.answered = 0

    def send(self, chunk: Chunk) -> None:
        self.sent.append(chunk)

    def receive(self) -> dict[str, list[str]]:
        chunk, number = self.sent[self.answered], self.answered
        self.answered += 1
        return {"files": [str(self.write(f"{number}-{place}", ids)) for place, ids in enumerate(chunk)]}

    def write(self, name: str, ids: Sequence[int]) -> Path:
        path = self.folder / f"{name}.safetensors"
        save_file({"token_ids": torch.tensor(ids), "hidden_states": states_of(ids)} | self.changes, path)
        return path


def states_of(ids: Sequence[int]) -> Tensor:
    return torch.tensor(ids).float()[:, None, None] + torch.arange(16.0).reshape(SHAPE)


def engine(other: Other) -> VLLMEngine:
    return VLLMEngine(other, SHAPE, "float32")  # type: ignore[arg-type]


def test_chunks_are_sent_ahead_but_not_far_and_their_files_do_not_stay(tmp_path: Path) -> None:
    other = Other(tmp_path)
    chunks = [[[1, 2, 3], [4]], [[5, 6]], [[7], [8], [9]], [[10]]]
    taken = 0

    def given() -> Iterator[Chunk]:
        for chunk in chunks:
            assert len(other.sent) - taken <= AHEAD
            yield chunk

    for chunk, states in zip(chunks, engine(other).capture(given()), strict=True):
        assert len(other.sent) > taken + AHEAD or len(other.sent) == len(chunks)
        assert list(tmp_path.iterdir()) == []
        assert all(torch.equal(state, states_of(ids)) for state, ids in zip(states, chunk, strict=True))
        taken += 1


def test_the_files_of_a_chunk_take_no_room_while_vllm_writes_the_chunk_after_the_next(tmp_path: Path) -> None:
    """They are mapped: the disk has their place back when nobody holds the tensors any more."""
    other = Other(tmp_path)

    def receive() -> dict[str, list[str]]:
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()
        return Other.receive(other)

    other.receive = receive  # type: ignore[method-assign]
    sink = Sink()
    capture(random_samples([3] * 4), [[0], [1], [2], [3]], engine(other), sink, on_tokens=lambda _: None)  # type: ignore[arg-type]
    assert sink.written == [0, 1, 2, 3]


class Sink:
    def __init__(self) -> None:
        self.done: frozenset[int] = frozenset()
        self.written: list[int] = []

    def write(self, number: int, samples: Sequence[Sample]) -> None:
        self.written.append(number)


@pytest.mark.parametrize(
    "changes",
    [
        {"token_ids": torch.tensor([1, 2, 4])},
        {"hidden_states": torch.zeros(3, 1, 8)},
        {"hidden_states": torch.zeros(3, *SHAPE, dtype=torch.bfloat16)},
        {"hidden_states": torch.zeros(2, *SHAPE), "token_ids": torch.tensor([1, 2])},
    ],
)
def test_states_of_something_else_are_refused(tmp_path: Path, changes: dict[str, Tensor]) -> None:
    with pytest.raises(UsageError, match="the wrong states"):
        next(engine(Other(tmp_path, **changes)).capture([[[1, 2, 3]]]))


def test_what_the_connector_could_not_write_is_told_in_its_words(tmp_path: Path) -> None:
    other = Other(tmp_path)
    failure_of(tmp_path / "0-1.safetensors").write_text("OSError: No space left on device")
    with pytest.raises(UsageError, match="No space left on device"):
        next(engine(other).capture([[[1], [2]]]))


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a process that takes the place of vLLM's writes what it was started with."""
    script, heard = tmp_path / "worker.py", tmp_path / "heard.json"
    script.write_text(
        "import json, pathlib\nfrom spec_convert.serving.worker import Parent\nparent = Parent()\n"
        f"pathlib.Path({str(heard)!r}).write_text(json.dumps(parent.receive()))\n"
        "parent.tell(ready=True)\nassert parent.receive() is None\n"
    )
    monkeypatch.setattr(vllm_engine, "COMMAND", (sys.executable, str(script)))
    return heard


def open_engine(verifier: Path, scratch: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "dtype": "float32", "compute_dtype": "float32", "scratch": scratch, "tensor_parallel_size": None,
        "llm_args": {}, "verbose": False,
    }  # fmt: skip
    layers = changes.pop("layers", range(LAYERS + 1))
    return open_vllm_engine(open_verifier(verifier), tuple(layers), **settings | changes)


def test_vllm_is_told_what_was_asked_for_and_the_scratch_folder_is_empty_before_and_after(
    recorder: Path, verifier: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    (scratch / FOLDER).mkdir(parents=True)
    (scratch / FOLDER / "old.safetensors").touch()
    with open_engine(verifier, scratch, longest=99, llm_args={"max_num_seqs": 3}, tensor_parallel_size=2) as opened:
        assert list((scratch / FOLDER).iterdir()) == []
        assert opened.name == "vllm"
    assert list(scratch.iterdir()) == []
    told = json.loads(recorder.read_text())
    wanted = {"model": str(verifier), "dtype": "float32", "max_model_len": 100, "max_num_seqs": 3}
    assert wanted.items() <= told.items()
    assert told["tensor_parallel_size"] == 2
    assert told["kv_transfer_config"]["kv_connector_extra_config"]["shared_storage_path"] == str(scratch / FOLDER)


@pytest.mark.parametrize("name", ["speculative_config", "model", "enable_prefix_caching", "tensor_parallel_size"])
def test_arguments_of_vllm_that_are_decided_here_are_refused(verifier: Path, tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(UsageError, match=f"`{name}` is no argument to give"),
        open_engine(verifier, tmp_path, llm_args={name: 1}),
    ):
        pass


def as_transformers_reads(verifier: Path, ids: Sequence[int]) -> Tensor:
    """[T, LAYERS + 1, HIDDEN]: what enters each layer, and what leaves the last one before its norm."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(verifier, dtype=torch.float32).model.eval()
    last: list[Tensor] = []
    model.norm.register_forward_pre_hook(lambda module, inputs: last.append(inputs[0][0]))
    with torch.inference_mode():
        read = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    return torch.stack([*(state[0] for state in read[:-1]), *last], dim=1)


def relative(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of any layer, as a part of that layer's norm."""
    return float(((ours.float() - theirs).norm(dim=(0, 2)) / theirs.norm(dim=(0, 2))).max())


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")


@pytest.mark.vllm
@pytest.mark.long
@pytest.mark.usefixtures("one_core")
def test_a_real_vllm_reads_what_transformers_reads_in_every_layer(verifier: Path, tmp_path: Path) -> None:
    """Lengths of all kinds, the longest of them read piece by piece; a chunk twice, beside others."""
    lengths = [[1, 2, 300], [17, 128, 64, 129, 5], [250], [1, 2, 300]]
    samples = random_samples([length for chunk in lengths[:3] for length in chunk])
    texts = iter(sample.input_ids.tolist() for sample in samples)
    chunks = [[next(texts) for _ in chunk] for chunk in lengths[:3]]
    chunks.append(chunks[0])
    limits = {"max_num_batched_tokens": 128, "max_num_seqs": 4}
    with open_engine(verifier, tmp_path, longest=300, llm_args=limits) as opened:
        captured = [[state.clone() for state in states] for states in opened.capture(iter(chunks))]
    assert list(tmp_path.iterdir()) == []
    assert [[len(state) for state in states] for states in captured] == lengths
    for chunk, states in zip(chunks, captured, strict=True):
        for ids, state in zip(chunk, states, strict=True):
            assert state.shape == (len(ids), LAYERS + 1, HIDDEN)
            assert relative(state, as_transformers_reads(verifier, ids)) < 1e-4
    assert all(torch.equal(first, again) for first, again in zip(captured[0], captured[3], strict=True))


@pytest.mark.vllm
@pytest.mark.long
@pytest.mark.usefixtures("one_core")
def test_computed_and_stored_in_bfloat16_it_differs_by_what_rounding_makes(verifier: Path, tmp_path: Path) -> None:
    ids = random_samples([200])[0].input_ids.tolist()
    with open_engine(verifier, tmp_path, compute_dtype="bfloat16", dtype="bfloat16", layers=(2, LAYERS)) as opened:
        [[state]] = opened.capture([[ids]])
    assert (state.dtype, state.shape) == (torch.bfloat16, (200, 2, HIDDEN))
    assert relative(state, as_transformers_reads(verifier, ids)[:, (2, LAYERS)]) < 0.05


@pytest.mark.vllm
@pytest.mark.long
@pytest.mark.usefixtures("one_core")
def test_why_vllm_does_not_start_is_one_line(verifier: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"vLLM failed: .*max_model_len"),
        open_engine(verifier, tmp_path, longest=5000),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
