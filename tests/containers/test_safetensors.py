"""Safetensors headers, which are read by hand: every way in which one can lie is refused with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spec_convert.open import open_checkpoint


def entry(begin: int, end: int, shape: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_values_names_and_dtypes_equal_those_of_the_safetensors_library(tmp_path: Path) -> None:
    safetensors_numpy = pytest.importorskip("safetensors.numpy")
    tensors = {
        "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
        "scalar": np.array(3.5, np.float16),
        "empty": np.zeros((0, 7), np.int64),
        "flags": np.array([True, False]),
    }
    safetensors_numpy.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(tmp_path)
    assert set(checkpoint) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(checkpoint.read(name), values)
        assert checkpoint.read(name).dtype == values.dtype


def test_start_is_counted_from_the_beginning_of_the_file(write_safetensors: Any) -> None:
    path = write_safetensors({"a": entry(0, 4, [1])}, b"abcd")
    tensor = open_checkpoint(path).tensors["a"]
    assert path.read_bytes()[tensor.start :] == b"abcd"


def test_a_header_of_640_bytes_is_not_mistaken_for_a_pickle(write_safetensors: Any) -> None:
    text = json.dumps({"a": entry(0, 4, [1])}).ljust(0x280)
    path = write_safetensors(text, b"abcd")
    assert path.read_bytes().startswith(b"\x80\x02")
    assert open_checkpoint(path).container == "safetensors"


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        ({"a": entry(0, 4, [1], "F33")}, 4, "unknown dtype 'F33'"),
        ({"a": {"shape": [1], "data_offsets": [0, 4]}}, 4, "unknown dtype None"),
        ({"a": entry(0, 4, [1], ["F32"])}, 4, "unknown dtype"),  # type: ignore[arg-type]
        ({"a": entry(0, 4, [2])}, 4, "8 bytes, but its data_offsets span 4"),
        ({"a": entry(0, 4, [10**9])}, 4, "but its data_offsets span 4"),
        ({"a": entry(0, 1, [1], "F4")}, 1, "0.5 bytes"),
        ({"a": entry(0, 0, [0, 2**40, 2**40])}, 0, "no machine can hold"),
        ({"a": entry(0, 4, [1] * 40)}, 4, "40 dimensions"),
        ({"a": entry(0, 4, [-1])}, 4, "not made of sizes"),
        ({"a": entry(0, 4, [True])}, 4, "not made of sizes"),
        ({"a": entry(0, 4, [1.0])}, 4, "not made of sizes"),
        ({"a": entry(0, 4, "1")}, 4, "no shape"),
        ({"a": entry(0, 4, None)}, 4, "no shape"),
        ({"a": entry(-4, 4, [2])}, 4, "impossible data_offsets"),
        ({"a": entry(4, 0, [1])}, 4, "impossible data_offsets"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4]}}, 4, "no data_offsets"),
        ({"a": {"dtype": "F32", "shape": [1]}}, 4, "no data_offsets"),
        ({"a": 1}, 4, "no data_offsets"),
        ({"a": entry(0, 8, [2]), "b": entry(4, 8, [1])}, 8, "overlaps"),
        ({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, 4, "overlaps"),
        ({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, 12, "4 bytes before b belong to no tensor"),
        ({"a": entry(4, 8, [1])}, 8, "4 bytes before a belong to no tensor"),
        ({"a": entry(0, 4, [1])}, 9, "5 bytes at the end"),
        ({"a": entry(0, 4, [1])}, 3, "cut short"),
        ({"a\x1b[2J": entry(0, 4, [1])}, 4, "unprintable name"),
        ({"": entry(0, 4, [1])}, 4, "unprintable name"),
        ("{} }", 0, "not JSON"),
        ("{" * 100_000, 0, "not JSON"),
        ('{"a":' + "[" * 100_000, 0, "nested more than"),
        ('{"a": 1, "a": 2}', 0, "'a' twice"),
        ('{"a": {"dtype": "F32", "dtype": "F16"}}', 0, "'dtype' twice"),
    ],
)
def test_a_header_that_lies_is_refused_with_the_reason(
    header: Any, data: int, says: str, write_safetensors: Any, refusal: Any
) -> None:
    refused = refusal(write_safetensors(header, b"x" * data))
    assert refused.finding.rule == "unreadable-container"
    assert says in refused.message
    assert refused.hint


@pytest.mark.parametrize("length", [2**63 - 1, 2**64 - 1, 10**8, 1000])
def test_an_announced_header_that_does_not_fit_is_refused_without_allocating_it(
    length: int, tmp_path: Path, refusal: Any
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}" + b" " * 100)
    assert f"announces a header of {length} bytes" in refusal(path).message


def test_text_that_is_not_utf8_is_refused(tmp_path: Path, refusal: Any) -> None:
    (tmp_path / "model.safetensors").write_bytes((4).to_bytes(8, "little") + b'{"\xff"')
    assert "not UTF-8" in refusal(tmp_path).message


def test_a_file_of_more_than_the_longest_header_is_never_read_whole(tmp_path: Path, refusal: Any) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as stream:
        stream.write((150_000_000).to_bytes(8, "little") + b"{")
        stream.truncate(200_000_000)  # sparse: takes no room on the disk
    assert "no file needs more than 32000000" in refusal(path).message
