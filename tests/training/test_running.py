"""One run of a capture, with an engine that makes states up: what is refused, what is gone on with, what is said."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.training.capture.engine import Chunk
from spec_convert.training.capture.running import Captured, CaptureRequest, run_capture
from spec_convert.training.store.reading import open_store
from spec_convert.training.store.sample import Sample
from spec_convert.verifier import open_verifier

from .small import HIDDEN, byte_tokenizer, random_samples, write_prepared

LENGTHS = [4, 6, 10, 3, 25, 2, 8]
LAYERS = (1, 6)
MADE_WITH = {"engine": "made up", "compute_dtype": "float32", "nonsense": "1.0"}
PER_TOKEN = len(LAYERS) * HIDDEN * 4


class MadeUp:
    """States that say which token they are of. ``lasts``: for how many chunks."""

    name = "made up"

    def __init__(self, lasts: int = 1000) -> None:
        self.lasts, self.opened, self.chunks = lasts, 0, 0

    @contextmanager
    def open(self) -> Iterator[MadeUp]:
        self.opened += 1
        yield self

    def capture(self, chunks: Iterable[Chunk]) -> Iterator[list[Tensor]]:
        for chunk in chunks:
            if self.chunks == self.lasts:
                raise KeyboardInterrupt
            self.chunks += 1
            yield [states_of(torch.tensor(ids)) for ids in chunk]


def states_of(ids: Tensor) -> Tensor:
    return ids.float()[:, None, None] + torch.arange(len(LAYERS) * HIDDEN).reshape(len(LAYERS), HIDDEN) / 256


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return random_samples(LENGTHS)


@pytest.fixture(scope="module")
def data(verifier: Path, samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_prepared(tmp_path_factory.mktemp("running") / "prepared", verifier, samples).folder


@pytest.fixture
def run(verifier: Path, data: Path, tmp_path: Path) -> Callable[..., Captured]:
    """Captures into `tmp_path / "out"`, twelve tokens a shard; what is named differs."""

    def call(engine: MadeUp | None = None, made_with: dict[str, str] = MADE_WITH, **changed: Any) -> Captured:
        asked: dict[str, Any] = {
            "data": data, "output": tmp_path / "out", "verifier": open_verifier(changed.pop("base", verifier)),
            "layer_ids": LAYERS, "dtype": "float32", "shard_bytes": 12 * PER_TOKEN,
        }  # fmt: skip
        scratch_shards = changed.pop("scratch_shards", 0)
        return run_capture(
            CaptureRequest(**asked | changed), (engine or MadeUp()).open, made_with=made_with,
            scratch_shards=scratch_shards,
        )  # fmt: skip

    return call


def test_every_sample_gets_its_own_states(run: Any, tmp_path: Path, samples: list[Sample]) -> None:
    captured = run()
    store = open_store(tmp_path / "out")
    store.verify()
    assert len(store) == len(samples)
    for stored, prepared in zip(store, samples, strict=True):
        assert stored.index == prepared.index
        assert torch.equal(stored.input_ids, prepared.input_ids)
        assert torch.equal(stored.loss_mask, prepared.loss_mask)
        assert stored.hidden_states is not None
        assert torch.equal(stored.hidden_states, states_of(prepared.input_ids))
    assert (captured.samples, captured.tokens, captured.shards) == (7, 58, 5)
    assert captured.new_tokens == captured.tokens
    assert captured.state_bytes_per_token == PER_TOKEN
    assert captured.bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())


def test_the_manifest_says_whose_states_these_are(run: Any, tmp_path: Path, verifier: Path) -> None:
    run()
    manifest = open_store(tmp_path / "out").manifest
    assert manifest.kind == "hidden_states"
    assert manifest.layers is not None
    assert manifest.layers.model_dump() == {
        "convention": "boundary", "ids": LAYERS, "num_hidden_layers": 6, "hidden_size": HIDDEN, "dtype": "float32",
        "last": "before_norm",
    }  # fmt: skip
    assert manifest.counts == {"samples": 7, "tokens": 58, "duplicates": 0}
    assert manifest.made_with.items() >= {**MADE_WITH, "verifier": str(verifier)}.items()


def test_an_interrupted_run_goes_on_without_doing_anything_twice(run: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(MadeUp(lasts=2))
    for leftover in (".tmpW8kqLs", "shard-00002.partial", "shard-00002.safetensors"):  # the first is safetensors' own
        (tmp_path / "out" / leftover).write_bytes(b"half of it")
    second = MadeUp()
    captured = run(second)
    assert second.chunks == 3
    assert (captured.tokens, captured.new_tokens) == (58, 58 - 4 - 6 - 10)
    run(output=tmp_path / "undisturbed")
    for path in (tmp_path / "undisturbed").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    assert len(list((tmp_path / "out").iterdir())) == len(list((tmp_path / "undisturbed").iterdir()))


def test_a_finished_output_says_so_and_opens_no_engine(run: Any, heard: list[str]) -> None:
    run()
    again = MadeUp()
    captured = run(again)
    assert again.opened == 0
    assert (captured.tokens, captured.new_tokens, captured.tokens_per_second) == (58, 0, None)
    assert "is finished: nothing is left to do" in heard[-1]


def test_what_it_will_take_is_said_before_the_start(run: Any, heard: list[str]) -> None:
    run()
    assert heard[0] == "7 samples, 58 tokens: 0.0 MB of states in 5 shards"


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr("spec_convert.training.capture.running.say", said.append)
    return said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"layer_ids": (2, 6)}, r"its layers is \[1, 6\], not \[2, 6\]"),
        ({"dtype": "bfloat16"}, "its dtype is 'float32', not 'bfloat16'"),
        ({"max_samples": 3}, "its max_samples is None, not 3"),
        ({"target_tokens": 30}, "its target_tokens is None, not 30"),
        ({"shard_bytes": 20 * PER_TOKEN}, "its shard_bytes is"),
        ({"made_with": MADE_WITH | {"engine": "another"}}, "its engine is 'made up', not 'another'"),
        ({"made_with": MADE_WITH | {"compute_dtype": "bfloat16"}}, "its compute_dtype is"),
    ],
)
def test_another_request_on_the_same_output_is_refused(run: Any, change: dict[str, Any], words: str) -> None:
    run()
    with pytest.raises(UsageError, match=f"holds the data of another request: {words}"):
        run(**change)


def test_other_data_on_the_same_output_is_refused(run: Any, verifier: Path, tmp_path: Path) -> None:
    run()
    other = write_prepared(tmp_path / "other", verifier, random_samples(LENGTHS, seed=1))
    with pytest.raises(UsageError, match="its data is"):
        run(data=other.folder)


def test_another_verifier_of_the_same_shape_is_refused(run: Any, verifier: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    run()
    tuned = shutil.copytree(verifier, tmp_path / "tuned")
    weights = load_file(tuned / "model.safetensors")
    weights["model.layers.3.self_attn.q_proj.weight"] *= 1.001
    save_file(weights, tuned / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match="its verifier is"):
        run(base=tuned)


def test_the_same_verifier_elsewhere_goes_on(run: Any, verifier: Path, tmp_path: Path) -> None:
    run()
    assert run(base=shutil.copytree(verifier, tmp_path / "moved")).new_tokens == 0


def test_versions_do_not_make_it_another_request(run: Any) -> None:
    run()
    assert run(made_with=MADE_WITH | {"nonsense": "2.0"}).new_tokens == 0


def test_data_of_another_tokenizer_is_refused_with_both_names(run: Any, verifier: Path, tmp_path: Path) -> None:
    other = shutil.copytree(verifier, tmp_path / "other")
    byte_tokenizer(["<|endoftext|>", "<|im_end|>"]).save_pretrained(other)
    with pytest.raises(UsageError, match=f"prepared with the tokenizer of {verifier}, and that of {other} is another"):
        run(base=other)
    assert not (tmp_path / "out").exists()


def test_a_text_longer_than_the_verifier_reads_is_refused(run: Any, verifier: Path, tmp_path: Path) -> None:
    long = write_prepared(tmp_path / "long", verifier, random_samples([10, 1024, 1030, 7]))
    with pytest.raises(UsageError, match=r"sample 2 of .* has 1,030 tokens, and .* reads at most 1,024") as refusal:
        run(data=long.folder)
    assert "--seq-length 1024" in refusal.value.hint


def test_hidden_states_are_not_prepared_data(run: Any, tmp_path: Path) -> None:
    run()
    with pytest.raises(UsageError, match="holds hidden states already"):
        run(data=tmp_path / "out", output=tmp_path / "again")


def test_no_samples_are_not_captured(run: Any, verifier: Path, tmp_path: Path) -> None:
    empty = write_prepared(tmp_path / "empty", verifier, [])
    with pytest.raises(UsageError, match="holds no samples"):
        run(data=empty.folder)


@pytest.mark.parametrize("layers", [(), (6, 1), (1, 1), (1, 7), (-1, 6)])
def test_layers_that_the_verifier_does_not_have_are_refused(run: Any, layers: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="are not ascending boundary ids from 0 to 6"):
        run(layer_ids=layers)


def test_a_disk_without_room_is_refused_before_anything_is_written(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    states = 58 * PER_TOKEN
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, states - 10_000))
    with pytest.raises(UsageError, match=r"room for 0\.0 MB, and 0\.0 MB are to be written: 0\.0 MB are missing") as no:
        run()
    assert all(words in no.value.hint for words in ("--max-samples", "--layers", "another disk"))
    assert not (tmp_path / "out").exists()


def test_what_an_engine_keeps_in_the_output_needs_room_too(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = (58 + 2 * 25) * PER_TOKEN  # the largest shard is the sample of 25 tokens
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, needed - 1))
    with pytest.raises(UsageError, match="are missing"):
        run(scratch_shards=2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, needed))
    run(scratch_shards=2)


def test_what_is_there_already_needs_no_room(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(MadeUp(lasts=2))
    left = (58 - 20) * PER_TOKEN
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, left))
    run()


def test_a_disk_that_fills_up_is_said_and_the_run_goes_on_later(run: Any, tmp_path: Path) -> None:
    """Played by a limit for the size of files, which only the fourth shard, of 25 tokens, exceeds."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * PER_TOKEN, limits[1]))
    try:
        with pytest.raises(UsageError, match=r"cannot write shard 3 into .*File too large") as refusal:
            run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "goes on where it stopped" in refusal.value.hint
    assert run().new_tokens == 25 + 2 + 8
    open_store(tmp_path / "out").verify()


def test_states_that_are_no_numbers_are_not_stored(run: Any) -> None:
    class Overflowing(MadeUp):
        def capture(self, chunks: Iterable[Chunk]) -> Iterator[list[Tensor]]:
            for states in super().capture(chunks):
                states[-1][0, 0, 5] = float("inf") if self.chunks == 1 else float("nan")
                yield states

    with pytest.raises(UsageError, match="the states of sample 1 are not all finite numbers in float32"):
        run(Overflowing())
