"""Both torch.save containers, read without torch: what torch.load gives is what we give."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spec_convert.checkpoint import Checkpoint
from spec_convert.open import open_checkpoint

torch = pytest.importorskip("torch")

CONTAINERS = {"torch-zip": True, "torch-legacy": False}
DTYPES = [
    "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool",
    "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "uint16", "uint32", "uint64",
]  # fmt: skip


@pytest.fixture(params=CONTAINERS)
def container(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def saved(value: Any, folder: Path, container: str = "torch-zip") -> Path:
    path = folder / "pytorch_model.bin"
    torch.save(value, path, _use_new_zipfile_serialization=CONTAINERS[container])
    return path


def assert_same(checkpoint: Checkpoint, tensors: dict[str, Any]) -> None:
    assert set(checkpoint) == set(tensors)
    for name, tensor in tensors.items():
        ours = checkpoint.read(name)
        assert ours.shape == tuple(tensor.shape)
        assert ours.tobytes() == tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_read_back_bit_for_bit(dtype: str, container: str, tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6).reshape(2, 3).to(getattr(torch, dtype)), "b": torch.zeros(1)}
    checkpoint = open_checkpoint(saved(tensors, tmp_path, container))
    assert checkpoint.container == container
    assert_same(checkpoint, tensors)


def test_scalars_empty_tensors_and_parameters_are_read(container: str, tmp_path: Path) -> None:
    tensors = {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "weight": torch.nn.Parameter(torch.ones(2))}
    assert_same(open_checkpoint(saved(tensors, tmp_path, container)), tensors)


def test_strided_views_keep_their_strides_and_their_values(container: str, tmp_path: Path) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    tensors = {"t": whole.t(), "part": whole[1:3, 2:5], "row": whole[2], "spread": torch.ones(1).expand(3, 2)}
    checkpoint = open_checkpoint(saved(tensors, tmp_path, container))
    assert checkpoint.tensors["t"].strides == (1, 6)
    assert checkpoint.tensors["row"].strides is None
    assert_same(checkpoint, tensors)


def test_tied_tensors_share_file_and_start(container: str, tmp_path: Path) -> None:
    table = torch.arange(6.0)
    tensors = open_checkpoint(saved({"embed": table, "head": table, "own": table.clone()}, tmp_path, container)).tensors
    assert tensors["embed"].start == tensors["head"].start != tensors["own"].start


def test_the_state_dict_of_a_module_is_read_with_its_metadata(container: str, tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    state = module.state_dict()
    assert isinstance(state, OrderedDict)
    assert_same(open_checkpoint(saved(state, tmp_path, container)), state)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_that_torch_can_use_is_read(protocol: int, tmp_path: Path) -> None:
    tensors = {f"layer.{number}": torch.ones(2) * number for number in range(300)}
    torch.save(tensors, tmp_path / "pytorch_model.bin", pickle_protocol=protocol)
    assert_same(open_checkpoint(tmp_path), tensors)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "module"])
def test_a_state_dict_under_a_well_known_key_is_unwrapped(key: str, container: str, tmp_path: Path) -> None:
    tensors = {"fc.weight": torch.ones(2, 2)}
    moments = {"state": {0: {"exp_avg": torch.zeros(5)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95)}]}
    path = saved({"epoch": 3, "optimizer": moments, key: tensors}, tmp_path, container)
    assert_same(open_checkpoint(path), tensors)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (["fc.weight", "norm.weight"], "holds a list"),
        ({}, "empty dict"),
        ({"epoch": 3}, "holds no tensors; its keys: epoch"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"model": {"a": torch.ones(1)}, "module": {"a": torch.ones(1)}}, "several state dicts: model, module"),
        ({"a": torch.ones(1), "epoch": 3}, "more than named tensors: epoch"),
        ({3: torch.ones(1)}, "more than named tensors: 3"),
        (torch.ones(1), "holds a single tensor"),
        ({"a": torch.ones(1, dtype=torch.complex64)}, "torch.ComplexFloatStorage"),
        ({"a\x1b": torch.ones(1)}, "unprintable name"),
    ],
)
def test_what_is_no_state_dict_is_refused_with_the_reason(
    value: Any, says: str, container: str, tmp_path: Path, refusal: Any
) -> None:
    refused = refusal(saved(value, tmp_path, container))
    assert refused.finding.rule == "unreadable-container"
    assert says in refused.message


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"a": torch.ones(1), "scale": np.float32(1)}, "numpy.dtype"),
        ({"a": torch.ones(1), "where": Path("x")}, "pathlib"),
        ({"a": torch.sparse_coo_tensor([[0]], [1.0], check_invariants=True)}, "torch.serialization._get_layout"),
    ],
)
def test_an_object_of_any_other_class_is_refused_by_its_name(
    value: Any, says: str, container: str, tmp_path: Path, refusal: Any
) -> None:
    refused = refusal(saved(value, tmp_path, container))
    assert refused.finding.rule == "unsafe-pickle"
    assert says in refused.message
    assert "safetensors" in refused.hint


def test_one_element_stretched_beyond_the_file_is_refused(tmp_path: Path, refusal: Any) -> None:
    assert "more than the whole file" in refusal(saved({"a": torch.ones(1).expand(10**9)}, tmp_path)).message


@pytest.mark.parametrize("left_out", [1, 8, 100, 400])
def test_a_cut_file_is_refused(left_out: int, container: str, tmp_path: Path, refusal: Any) -> None:
    path = saved({"a": torch.ones(40), "b": torch.ones(40)}, tmp_path, container)
    path.write_bytes(path.read_bytes()[:-left_out])
    assert refusal(path).finding.rule == "unreadable-container"


def test_bytes_after_a_legacy_file_are_refused(tmp_path: Path, refusal: Any) -> None:
    path = saved({"a": torch.ones(40)}, tmp_path, "torch-legacy")
    path.write_bytes(path.read_bytes() + b"more")
    assert "4 bytes at the end" in refusal(path).message


def test_a_torchscript_program_is_refused(tmp_path: Path, refusal: Any) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "model.pt"))
    assert "TorchScript" in refusal(tmp_path).message
