"""The engine transformers: every layer is what the model itself says it is, however the texts are batched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.evaluation.verifier_model import load_model
from spec_convert.training.capture.batching import BATCHINGS, Batching
from spec_convert.training.capture.transformers_engine import TransformersEngine, open_transformers_engine
from spec_convert.verifier import open_verifier

from .small import HIDDEN, LAYERS, random_samples

ALL = tuple(range(LAYERS + 1))
LENGTHS = [5, 17, 1, 40, 17, 9, 33, 2]  # ragged, the longest beyond the smallest budget
TEXTS = [sample.input_ids.tolist() for sample in random_samples(LENGTHS)]


def fresh(verifier: Path) -> Any:
    return load_model(str(verifier), revision=None, dtype="float32", device="cpu").eval()


@pytest.fixture
def model(verifier: Path) -> Any:
    return fresh(verifier)


@pytest.fixture(scope="module")
def expected(verifier: Path) -> list[Tensor]:
    """Each text alone, [T, N + 1, H]: what the model says of itself, and of layer N what enters the final norm."""
    model, caught = fresh(verifier), list[Tensor]()
    model.model.norm.register_forward_pre_hook(lambda _module, args: caught.append(args[0][0]))
    states = []
    for text in TEXTS:
        with torch.no_grad():
            output = model(torch.tensor([text]), output_hidden_states=True)
        states.append(torch.stack([*(state[0] for state in output.hidden_states[:-1]), caught.pop()], dim=1))
    return states


def engine(
    verifier: Path, layer_ids: tuple[int, ...] = ALL, dtype: str = "float32", batching: Batching = "padded",
    batch_tokens: int = 64,
) -> TransformersEngine:  # fmt: skip
    return TransformersEngine(fresh(verifier), layer_ids, dtype=dtype, batching=batching, batch_tokens=batch_tokens)


def far(one: Tensor, other: Tensor) -> float:
    """The difference, in parts of what is expected."""
    return float((one.double() - other.double()).norm() / other.double().norm())


@pytest.mark.parametrize("batching", ["padded", "packed"])
@pytest.mark.parametrize("batch_tokens", [1, 20, 64, 10_000])
def test_every_layer_of_every_text_is_as_the_model_says_alone(
    verifier: Path, expected: list[Tensor], batching: Batching, batch_tokens: int
) -> None:
    (states,) = engine(verifier, batching=batching, batch_tokens=batch_tokens).capture([TEXTS])
    for state, alone in zip(states, expected, strict=True):
        assert state.shape == alone.shape
        for layer in ALL:
            assert far(state[:, layer], alone[:, layer]) < 2e-6


def test_layer_n_is_not_what_transformers_calls_the_last_hidden_state(model: Any, expected: list[Tensor]) -> None:
    with torch.no_grad():
        last = model(torch.tensor([TEXTS[3]]), output_hidden_states=True).hidden_states[-1][0]
    assert far(last, expected[3][:, LAYERS]) > 0.1


def test_only_the_layers_that_are_wanted_come_in_their_order(verifier: Path, expected: list[Tensor]) -> None:
    (states,) = engine(verifier, (1, 4, LAYERS)).capture([TEXTS])
    for state, alone in zip(states, expected, strict=True):
        assert far(state, alone[:, [1, 4, LAYERS]]) < 2e-6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_states_are_rounded_to_the_nearest(verifier: Path, dtype: str) -> None:
    (exact,) = engine(verifier).capture([TEXTS])
    (rounded,) = engine(verifier, dtype=dtype).capture([TEXTS])
    for state, full in zip(rounded, exact, strict=True):
        assert torch.equal(state, full.to(getattr(torch, dtype)))


@pytest.mark.parametrize("batching", ["padded", "packed"])
def test_a_chunk_is_the_same_bits_whatever_comes_before_it(verifier: Path, batching: Batching) -> None:
    chunks = [TEXTS[:3], TEXTS[3:]]
    _, after = engine(verifier, batching=batching).capture(chunks)
    (alone,) = engine(verifier, batching=batching).capture(chunks[1:])
    assert all(map(torch.equal, after, alone))


def test_chunks_are_read_only_when_they_are_wanted(verifier: Path) -> None:
    def chunks() -> Iterator[list[list[int]]]:
        yield TEXTS[:1]
        raise AssertionError("read ahead")

    next(engine(verifier).capture(chunks()))


@pytest.mark.parametrize("batching", ["padded", "packed"])
@pytest.mark.parametrize("budget", [1, 20, 64, 10_000])
def test_batches_hold_every_text_once_within_their_budget(batching: Batching, budget: int) -> None:
    batches = list(BATCHINGS[batching](TEXTS, budget=budget))
    assert sorted(place for batch in batches for place in batch.places) == list(range(len(TEXTS)))
    for batch in batches:
        assert batch.input_ids.numel() <= budget or len(batch.places) == 1
        laid = batch.input_ids.flatten()[batch.tokens].split(batch.lengths)
        assert [ids.tolist() for ids in laid] == [TEXTS[place] for place in batch.places]


def test_neither_the_head_nor_a_cache_is_computed(model: Any) -> None:
    seen: list[Any] = []
    model.lm_head.register_forward_hook(lambda *_: pytest.fail("the head was computed"))
    model.model.register_forward_hook(lambda _module, _args, made: seen.append(made))
    one = TransformersEngine(model, (1, LAYERS), dtype="bfloat16", batching="padded", batch_tokens=64)
    (states,) = one.capture([TEXTS])
    assert all(made.past_key_values is None and made.hidden_states is None for made in seen)
    assert all(state.shape[1:] == (2, HIDDEN) and not state.requires_grad for state in states)


def test_a_model_that_does_not_keep_packed_texts_apart_is_refused(model: Any, monkeypatch: Any) -> None:
    """As an architecture would be that makes its mask without looking at the positions."""
    import transformers.masking_utils

    monkeypatch.setattr(transformers.masking_utils, "find_packed_sequence_indices", lambda _positions: None)
    with pytest.raises(UsageError, match="does not keep the texts of a packed row apart"):
        TransformersEngine(model, (1, LAYERS), dtype="float32", batching="packed", batch_tokens=64)


def opened(folder: Path, device: str = "cpu") -> Any:
    return open_transformers_engine(
        open_verifier(folder), ALL, dtype="float32", compute_dtype="float32", batching="padded", batch_tokens=64,
        device=device,
    )  # fmt: skip


def test_missing_weights_are_refused(verifier: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in verifier.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with (
        pytest.raises(UsageError, match=r"1 of the weights of .* not there, the first model\.layers\.1\.mlp\.up_proj"),
        opened(tmp_path),
    ):
        pass


def test_an_unknown_architecture_is_refused(verifier: Path, tmp_path: Path) -> None:
    config = (verifier / "config.json").read_text().replace('"model_type": "llama"', '"model_type": "never-heard-of"')
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UsageError, match="transformers cannot load"), opened(tmp_path):
        pass


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(verifier: Path, device: str) -> None:
    with pytest.raises(UsageError, match=f"there is no device {device}"), opened(verifier, device):
        pass


def test_too_little_memory_is_said_with_what_to_do(model: Any, monkeypatch: Any) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand so on")

    one = TransformersEngine(model, (1,), dtype="float32", batching="padded", batch_tokens=64)
    monkeypatch.setattr(model.model, "forward", full)
    with pytest.raises(UsageError, match=r"not enough memory: .*2 GiB$") as refusal:
        list(one.capture([TEXTS]))
    assert "--batch-tokens" in refusal.value.hint
