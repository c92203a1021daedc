"""Random and mutated files: whatever the bytes are, a checkpoint opens soundly or is `Unreadable`, and nothing runs."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spec_convert.bytes import span
from spec_convert.checkpoint import Checkpoint
from spec_convert.errors import Unreadable
from spec_convert.open import open_checkpoint

FIXTURES = Path(__file__).parent / "fixtures"
SEEDS = (
    "_control_eagle3/checkpoint/model.safetensors",
    "torch_zip_named_safetensors/checkpoint/model.safetensors",
    "pickle_os_system_zip/checkpoint/pytorch_model.bin",
    "pickle_os_system_legacy/checkpoint/pytorch_model.bin",
    "pickle_os_system_raw/checkpoint/pytorch_model.bin",
)
FUZZ = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def no_execution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Every payload, of the fixtures and of this file, makes a file in the working directory."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir()), "a payload ran"


def opened(raw: bytes, name: str) -> Checkpoint:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(raw)
        return open_checkpoint(folder)


def survives(raw: bytes, name: str = "model.safetensors") -> None:
    try:
        checkpoint = opened(raw, name)
    except Unreadable:
        return
    for tensor in checkpoint.tensors.values():
        assert 0 <= tensor.start <= tensor.start + span(tensor) <= len(raw)
        assert tensor.nbytes <= len(raw)


@cache
def seed(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


def mutated(data: st.DataObject, raw: bytes, *, within: int) -> bytes:
    """A few bytes changed, a run removed or repeated, or the end cut off, in the part that describes the tensors."""
    changed = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        changed = changed or bytearray(1)
        at = data.draw(st.integers(0, min(within, len(changed) - 1)))
        length = data.draw(st.integers(1, 40))
        match data.draw(st.sampled_from(["set", "bits", "remove", "repeat", "cut"])):
            case "set":
                changed[at] = data.draw(st.integers(0, 255))
            case "bits":
                changed[at] ^= 1 << data.draw(st.integers(0, 7))
            case "remove":
                del changed[at : at + length]
            case "repeat":
                changed[at:at] = changed[at : at + length]
            case _:
                del changed[max(at, 1) :]
    return bytes(changed)


@FUZZ
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(raw: bytes) -> None:
    survives(raw)


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x80\x02", b"\x80\x05", b"\x80\x00\x00\x00\x00\x00\x00\x00{"])
@FUZZ
@given(st.binary(max_size=300))
def test_random_bytes_after_a_magic_are_refused(start: bytes, raw: bytes) -> None:
    survives(start + raw)


@pytest.mark.parametrize("name", SEEDS)
@FUZZ
@given(st.data())
def test_a_mutated_file_is_refused_or_read_soundly(name: str, data: st.DataObject) -> None:
    survives(mutated(data, seed(name), within=3000))


@pytest.mark.parametrize("name", SEEDS[1:3])
@FUZZ
@given(st.data())
def test_a_mutated_zip_directory_is_refused_or_read_soundly(name: str, data: st.DataObject) -> None:
    """The directory is at the end of the file."""
    survives(mutated(data, seed(name)[::-1], within=1500)[::-1])


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F4", "BOOL", "I64", "F99"]) | TREES,
        "shape": st.lists(st.integers(-1, 3) | st.sampled_from([2**31, 2**62, 2**64]), max_size=4) | TREES,
        "data_offsets": st.lists(st.integers(-1, 16) | st.sampled_from([2**63]), min_size=1, max_size=3) | TREES,
    }
)


@FUZZ
@given(st.dictionaries(st.text(max_size=3), ENTRIES | TREES, max_size=3) | TREES, st.binary(max_size=16))
def test_any_json_as_a_safetensors_header_is_refused_or_read_soundly(header: object, data: bytes) -> None:
    text = json.dumps(header).encode()
    survives(len(text).to_bytes(8, "little") + text + data)


@FUZZ
@given(TREES | st.fixed_dictionaries({"weight_map": TREES}))
def test_any_json_as_an_index_is_refused(index: object) -> None:
    survives(json.dumps(index).encode(), "model.safetensors.index.json")


@FUZZ
@given(TREES, st.sampled_from([2, 3, 4, 5]))
def test_any_pickled_values_are_refused(value: object, protocol: int) -> None:
    survives(pickle.dumps(value, protocol))


class Payload:
    """Runs a program when it is unpickled the usual way."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, ("touch executed",)


@FUZZ
@given(st.recursive(st.builds(Payload), lambda inner: st.tuples(TREES, inner) | st.fixed_dictionaries({"a": inner})))
def test_a_payload_hidden_anywhere_never_runs(value: object) -> None:
    with pytest.raises(Unreadable, match=r"wants to call (posix|nt)\.system"):
        opened(pickle.dumps(value), "model.safetensors")
