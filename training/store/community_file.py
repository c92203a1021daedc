"""One file of the community: what it must hold, in its two versions. Nothing that it says is executed."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from spec_convert.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

KEYS = {0: {"input_ids", "loss_mask", "hidden_state", "target"}, 1: {"input_ids", "loss_mask", "hidden_states"}}
OURS = "index"  # our own files say in it which sample of the prepared data they are


@dataclass(frozen=True, slots=True, eq=False)
class PtSample:
    """``states``: [T, H] of each layer, mapped into memory, not read."""

    version: int
    index: int | None
    input_ids: Tensor  # [T] int64
    loss_mask: Tensor  # [T] bool
    states: tuple[Tensor, ...]


def read_tensors(path: Path) -> Any:
    """What `torch.load` makes of the file, on the CPU and where the file allows it by memory map.

    Raises UsageError when it cannot be read, or holds any object that is not plain data.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # what a damaged or malicious file raises is anything
        why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"{path} cannot be read as plain tensors: {why}",
            hint="it is damaged, or holds objects that would be executed: get or write it anew",
        ) from error


def read_pt(path: Path) -> PtSample:
    """Raises UsageError when the file holds anything but one sample of version 0 or 1."""
    data = read_tensors(path)
    if not isinstance(data, dict):
        raise _unusable(path, f"holds a {type(data).__name__}, not a sample's dict")
    keys = {key for key in data if key != OURS}
    version = 0 if "hidden_state" in keys or "target" in keys else 1
    if missing := sorted(KEYS[version] - keys):
        raise _unusable(path, f"has no `{missing[0]}`")
    if unknown := sorted(map(str, keys - KEYS[version])):
        raise _unusable(path, f"has `{unknown[0]}`, which no sample of version {version} has")
    index = data.get(OURS)
    if index is not None and type(index) is not int:
        raise _unusable(path, f"`{OURS}` is {index!r}, not a number")
    input_ids = _ids(path, data["input_ids"])
    states = _version_0(path, data) if version == 0 else _version_1(path, data)
    mask = _mask(path, data)
    for key, length in (("a loss_mask", len(mask)), ("hidden states", len(states[0]))):
        if length != len(input_ids):
            raise _unusable(path, f"holds {len(input_ids)} tokens, and {key} of {length}")
    return PtSample(version, index, input_ids, mask, states)


def _ids(path: Path, ids: Any) -> Tensor:
    import torch

    if not _plain(ids) or ids.dim() != 1 or ids.dtype not in (torch.int64, torch.int32):
        raise _unusable(path, f"`input_ids` is {_kind(ids)}, not [T] of integers")
    return ids.long()


def _mask(path: Path, data: dict[str, Any]) -> Tensor:
    mask = data["loss_mask"]
    if not _plain(mask) or mask.dim() != 1:
        raise _unusable(path, f"`loss_mask` is {_kind(mask)}, not [T]")
    if not ((mask == 0) | (mask == 1)).all():
        raise _unusable(path, "`loss_mask` holds values other than 0 and 1")
    return mask.bool()


def _version_1(path: Path, data: dict[str, Any]) -> tuple[Tensor, ...]:
    states = data["hidden_states"]
    if not isinstance(states, list | tuple) or not states:
        raise _unusable(path, f"`hidden_states` is {_kind(states)}, not a list of tensors")
    for state in states:
        _require_states(path, "hidden_states", state)
        if state.shape != states[0].shape or state.dtype != states[0].dtype:
            raise _unusable(path, f"`hidden_states` are not alike: {_kind(states[0])} and {_kind(state)}")
    return tuple(state.detach() for state in states)


def _version_0(path: Path, data: dict[str, Any]) -> tuple[Tensor, ...]:
    """`hidden_state` holds several layers side by side, `target` the last one."""
    side_by_side, target = data["hidden_state"], data["target"]
    for key in ("hidden_state", "target"):
        _require_states(path, key, data[key])
    layers, rest = divmod(side_by_side.shape[1], target.shape[1])
    if rest or not layers or len(side_by_side) != len(target) or side_by_side.dtype != target.dtype:
        raise _unusable(path, f"`hidden_state` is {_kind(side_by_side)}, and `target` {_kind(target)}")
    return (*side_by_side.detach().chunk(layers, dim=1), target.detach())


def _require_states(path: Path, key: str, state: Any) -> None:
    import torch

    floats = (torch.bfloat16, torch.float16, torch.float32)
    if not _plain(state) or state.dim() != 2 or not state.shape[1] or state.dtype not in floats:
        raise _unusable(path, f"`{key}` holds {_kind(state)}, not [T, H] of bfloat16, float16 or float32")


def _plain(value: Any) -> TypeGuard[Tensor]:
    """Whether it is a tensor whose every element lies in the file: a crafted one may claim any shape."""
    import torch

    return (
        isinstance(value, torch.Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _kind(value: Any) -> str:
    import torch

    if isinstance(value, torch.Tensor):
        return f"{list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__


def _unusable(path: Path, what: str) -> UsageError:
    hint = "a sample is input_ids [T], loss_mask [T] and hidden_states, a list of [T, H], or hidden_state and target"
    return UsageError(f"{path} {what}", hint=hint)
