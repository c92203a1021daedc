"""Tiny checkpoints: of any format and size, the same each time, and fitting the tiny verifier."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spec_convert import validate
from spec_convert.errors import UsageError
from spec_convert.open import open_checkpoint
from spec_convert.registry import registry
from spec_convert.testing import Example, tiny_checkpoint, tiny_verifier, write_example
from spec_convert.verifier import open_verifier

from .pig import PIG


def test_it_is_a_checkpoint_of_the_sizes_that_were_asked_for(tmp_path: Path) -> None:
    folder = tiny_checkpoint("eagle", tmp_path / "draft", hidden=8, layers=2)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.shape("fc.weight") == (8, 16)
    assert checkpoint.get("hidden_size") == 8
    assert "layers.1.input_layernorm.weight" in checkpoint


def test_the_verifier_of_the_same_sizes_fits_it(tmp_path: Path) -> None:
    sizes = {"hidden": 8, "vocabulary": 50, "verifier_layers": 9}
    draft, verifier = tiny_checkpoint("eagle3", tmp_path / "draft", **sizes), tiny_verifier(tmp_path / "base", **sizes)
    assert not validate(draft, verifier=verifier, level="forward").has_errors
    assert validate(draft, verifier=tiny_verifier(tmp_path / "other")).has_errors
    seen = open_verifier(verifier)
    assert (seen.num_hidden_layers, seen.checkpoint.shape(seen.head_name)) == (9, (50, 8))


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = (tiny_checkpoint("eagle3", tmp_path / name) for name in ("one", "other"))
    assert [file.read_bytes() for file in sorted(one.iterdir())] == [f.read_bytes() for f in sorted(other.iterdir())]


def test_no_two_tensors_hold_the_same_numbers(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint("eagle", tmp_path / "draft", layers=2))
    beginnings = [checkpoint.read(name).ravel()[:4].tobytes() for name in checkpoint]
    assert len(set(beginnings)) == len(beginnings)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
@pytest.mark.parametrize("name", ["eagle3", "eagle-mlp"])  # the second one is a file of torch
def test_weights_are_of_the_dtype_that_was_asked_for_and_maps_are_not(name: str, dtype: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint(name, tmp_path / "draft", dtype=dtype))
    maps = {name: tensor.dtype for name, tensor in checkpoint.tensors.items() if name in ("d2t", "t2d")}
    assert maps == ({"d2t": "I64", "t2d": "BOOL"} if name == "eagle3" else {})
    assert {tensor.dtype for name, tensor in checkpoint.tensors.items() if name not in maps} == {dtype}


def test_a_file_of_torch_and_one_of_safetensors_hold_the_same(tmp_path: Path) -> None:
    shapes, values = {"w": (3, 2)}, {"ids": [4, 5], "marks": [True, False]}
    written = {
        file: write_example(Example(config={}, shapes=shapes, values=values, file=file), tmp_path / file)
        for file in ("model.safetensors", "weights.pt")
    }
    one, other = (open_checkpoint(folder) for folder in written.values())
    assert {name: one.read(name).tolist() for name in one} == {name: other.read(name).tolist() for name in other}
    loaded = torch.load(tmp_path / "weights.pt" / "weights.pt", weights_only=True)
    assert np.array_equal(loaded["w"].numpy(), one.read("w"))


def test_an_example_may_be_changed_and_written_again(tmp_path: Path) -> None:
    folder = write_example(Example(config={"a": 1}, shapes={"w": (2,)}), tmp_path / "draft")
    write_example(Example(config={"a": 2}, shapes={"v": (3,)}), folder)
    assert json.loads((folder / "config.json").read_text()) == {"a": 2}
    assert list(open_checkpoint(folder)) == ["v"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"format": "eagel"}, "no format `eagel`"),
        ({"format": "eagle", "hiden": 8}, "no size `hiden`"),
        ({"format": "eagle", "dtype": "float32"}, "cannot be written as `float32`"),
    ],
)
def test_what_cannot_be_made_is_refused(arguments: dict[str, object], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        tiny_checkpoint(folder=tmp_path / "draft", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "draft").exists()


def test_a_format_without_an_example_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry().formats, "pig", replace(PIG, example=None))
    with pytest.raises(UsageError, match="`pig` has no example") as refused:
        tiny_checkpoint("pig", tmp_path / "draft")
    assert "`example=`" in refused.value.hint
