"""What the names inside a torch pickle mean, as data: storages, views of storages and ordered dicts. A closed set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from spec_convert.containers.pickle_reader import WHOLE_MODULE, Args, Calls, Global, read_pickle
from spec_convert.containers.refusal import damaged, unreadable
from spec_convert.containers.shapes import check_name, check_shape
from spec_convert.tensor import BITS, Tensor

DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
STORAGES = {
    Global("torch", "DoubleStorage"): "F64", Global("torch", "FloatStorage"): "F32",
    Global("torch", "HalfStorage"): "F16", Global("torch", "BFloat16Storage"): "BF16",
    Global("torch", "LongStorage"): "I64", Global("torch", "IntStorage"): "I32",
    Global("torch", "ShortStorage"): "I16", Global("torch", "CharStorage"): "I8",
    Global("torch", "ByteStorage"): "U8", Global("torch", "BoolStorage"): "BOOL",
    Global("torch.storage", "UntypedStorage"): "U8",
}  # fmt: skip
MAX_REPEATED = 16  # tied weights repeat a storage once or twice


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of elements in the file, by the key that the file gives it."""

    key: str
    dtype: str
    count: int

    @property
    def nbytes(self) -> int:
        return self.count * BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class View:
    """A tensor before it is checked: a window on a storage."""

    storage: Storage
    offset: Any
    shape: Any
    strides: Any
    dtype: str


def read_object(
    stream: BinaryIO, *, file: str, start: int, most: int | None = None
) -> tuple[object, dict[str, Storage], int]:
    """The pickled value, the storages that it uses, and the offset after the pickle of ``most`` bytes at most."""
    storages: dict[str, Storage] = {}

    def persistent(saved: Args) -> Storage:
        if saved[:1] == ("module",):  # the legacy format writes the source code of each class beside its name
            raise unreadable("unsafe-pickle", file, f"wants to make {_named(*saved[1:2])}", WHOLE_MODULE)
        storage = _storage(saved)
        if storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key} is declared in two ways")
        return storage

    value, end = read_pickle(stream, file=file, start=start, most=most, calls=CALLS, persistent=persistent)
    return value, storages, end


def _storage(saved: Args) -> Storage:
    if len(saved) not in (5, 6) or saved[0] != "storage" or saved[5:] not in ((), (None,)):
        raise ValueError("a persistent id is no storage")
    _, kind, key, _, count = saved[:5]
    if not isinstance(kind, Global) or kind not in STORAGES:
        raise ValueError(f"a storage has an unknown type ({_named(kind)})")
    if not isinstance(key, str) or not key.isalnum() or type(count) is not int or not 0 <= count < 2**56:
        raise ValueError("a storage has no key or no size")
    return Storage(key, STORAGES[kind], count)


def _tensor(args: Args) -> View:
    """`_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks[, metadata])`"""
    return _view(args[:4], args[6:], None)


def _tensor_of_dtype(args: Args) -> View:
    """`_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])`"""
    return _view(args[:4], args[7:], args[6])


def _view(placed: Args, metadata: Args, dtype: object) -> View:
    storage, offset, shape, strides = placed
    if not isinstance(storage, Storage):
        raise ValueError("a tensor has no storage")
    if metadata not in ((), ({},)):
        raise ValueError("a tensor is a lazy conjugate or negative")
    if dtype is None:
        return View(storage, offset, shape, strides, storage.dtype)
    if not isinstance(dtype, Global) or dtype.module != "torch" or dtype.name not in DTYPES:
        raise ValueError(f"a tensor has an unknown dtype ({_named(dtype)})")
    return View(storage, offset, shape, strides, DTYPES[dtype.name])


def _named(value: object = None) -> str:
    return str(value) if isinstance(value, Global) else type(value).__name__


def _parameter(args: Args) -> View:
    if not args or not isinstance(args[0], View):
        raise ValueError("a parameter holds no tensor")
    return args[0]


def _ordered_dict(args: Args) -> dict[Any, Any]:
    if args:
        raise ValueError("an OrderedDict comes with its items inside")
    return {}


def _size(args: Args) -> tuple[Any, ...]:
    if len(args) != 1 or not isinstance(args[0], tuple):
        raise ValueError("a torch.Size holds no tuple")
    return args[0]


CALLS: Calls = {
    Global("collections", "OrderedDict"): _ordered_dict,
    Global("torch", "Size"): _size,
    Global("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Global("torch._utils", "_rebuild_tensor_v3"): _tensor_of_dtype,
    Global("torch._utils", "_rebuild_parameter"): _parameter,
    Global("torch._utils", "_rebuild_parameter_with_state"): _parameter,
}


def place(views: Mapping[str, View], starts: Mapping[str, int], *, file: str, size: int) -> dict[str, Tensor]:
    """The tensors, with each storage at its byte offset in the file."""
    tensors = {name: _place(name, view, starts[view.storage.key], file, size) for name, view in views.items()}
    # Views of one storage can hold its bytes any number of times: a small file must not become a full disk.
    total = sum(tensor.nbytes for tensor in tensors.values())
    if total > MAX_REPEATED * size:
        raise damaged(file, f"its tensors have {total} bytes together, more than {MAX_REPEATED} times the file")
    return tensors


def _place(name: str, view: View, start: int, file: str, size: int) -> Tensor:
    check_name(name, file)
    shape = check_shape(name, view.shape, file)
    strides = _strides(name, view, file)
    width = BITS[view.dtype] // 8
    empty = 0 in shape
    last = sum((count - 1) * stride for count, stride in zip(shape, strides, strict=True))
    end = view.offset + (0 if empty else last + 1)
    if end * width > view.storage.nbytes:
        held = view.storage.nbytes
        raise damaged(file, f"{name} reaches to byte {end * width} of a storage of {held} bytes")
    tensor = Tensor(
        name=name,
        dtype=view.dtype,
        shape=shape,
        file=file,
        start=start + view.offset * width,
        strides=None if empty or _is_row_major(shape, strides) else strides,
    )
    # One stored element can be stretched to any size by strides of 0: never more than the file itself.
    if tensor.nbytes > size:
        raise damaged(file, f"{name} has {tensor.nbytes} bytes once unfolded, more than the whole file")
    return tensor


def _strides(name: str, view: View, file: str) -> tuple[int, ...]:
    steps = view.strides
    if not isinstance(steps, tuple) or len(steps) != len(view.shape):
        raise damaged(file, f"{name} has not one stride for each dimension")
    if any(type(step) is not int or step < 0 for step in (*steps, view.offset)):
        raise damaged(file, f"{name} has an offset or a stride that is no size")
    return steps


def _is_row_major(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for count, stride in zip(reversed(shape), reversed(strides), strict=True):
        if count != 1 and stride != expected:
            return False
        expected *= count
    return True
