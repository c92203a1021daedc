"""A pickle read as data: the few opcodes that state dicts need, on a stack of plain values. Nothing is ever imported.

Python's own unpickler looks names up in modules and calls them; here a name is an inert token, and the caller passes
the closed set of names that have a meaning. Everything else is refused with the name that the pickle wanted to use.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from spec_convert.containers.refusal import damaged, unreadable
from spec_convert.errors import Unreadable

# A state dict needs about 120 bytes per tensor. The cap bounds time and memory: each byte makes at most one object.
MAX_BYTES = 1_000_000
ASK = "Ask the publisher for safetensors; never load this file with torch.load(weights_only=False)."
WHOLE_MODULE = f"{ASK} Was a whole module saved? Save model.state_dict() instead."
OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}

Args = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle wants looked up. Only ever compared and printed."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


Calls = Mapping[Global, Callable[[Args], object]]


def read_pickle(  # noqa: PLR0913  where it is, and what names mean in it
    stream: BinaryIO,
    *,
    file: str,
    start: int,
    most: int | None = None,
    calls: Calls,
    persistent: Callable[[Args], object],
) -> tuple[object, int]:
    """The value of the pickle at ``start``, which has ``most`` bytes at most, and the offset of the byte after it."""
    window = _Window(stream, start, MAX_BYTES if most is None else min(most, MAX_BYTES))
    machine = _Machine(file, calls, persistent)
    try:
        for name, arg in _opcodes(window):
            if name == "STOP":
                return machine.pop(), start + window.tell()
            machine.step(name, arg)
    except (ValueError, IndexError) as error:  # an IndexError is an empty stack
        raise damaged(file, f"its pickle is damaged: {error}") from error
    raise damaged(file, "its pickle has no end")


def _opcodes(window: _Window) -> Iterator[tuple[str, Any]]:
    """Each opcode and its argument, decoded only where the opcode is one that we use, or that names what it wants."""
    while code := window.read(1):
        opcode = OPCODES.get(code)
        if opcode is None:
            raise ValueError(f"unknown opcode {code!r}")
        used = opcode.name in ACTIONS or opcode.name == "INST"
        yield opcode.name, opcode.arg.reader(cast("BinaryIO", window)) if opcode.arg and used else None


class _Window:
    """The next bytes of a stream, so that no announced length can make us read or allocate more."""

    def __init__(self, stream: BinaryIO, start: int, length: int) -> None:
        self._stream = stream
        self._length = self._left = length
        stream.seek(start)

    def read(self, count: int) -> bytes:
        return self._taken(self._stream.read(min(count, self._left)))

    def readline(self) -> bytes:
        return self._taken(self._stream.readline(self._left))

    def tell(self) -> int:
        return self._length - self._left

    def _taken(self, raw: bytes) -> bytes:
        self._left -= len(raw)
        return raw


class _Machine:
    """The stack, the marks and the memo of the pickle protocol."""

    def __init__(self, file: str, calls: Calls, persistent: Callable[[Args], object]) -> None:
        self.file = file
        self.calls = calls
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, arg: Any) -> None:
        action = ACTIONS.get(name)
        if action is None:
            raise self._unknown(name, arg)
        action(self, arg)

    def skip(self, _: object) -> None:
        """Versions and frames carry nothing."""

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def top(self, kind: type[Any]) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise ValueError(f"expected a {kind.__name__} on its stack")
        return self.stack[-1]

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def tuple_of(self, count: int) -> None:
        if count > len(self.stack):
            raise IndexError("too few values on its stack")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(items)

    def extend(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def remember(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def recall(self, place: int) -> None:
        if place not in self.memo:
            raise ValueError(f"value {place} is used before it is made")
        self.push(self.memo[place])

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing a tuple walks it, and a short pickle can hold one that takes for ever to walk.
            if not isinstance(key, str | int | float | None):
                raise ValueError("a dict has a key that is neither text nor number")
            target[key] = value

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a global has a name that is not text")
        self.push(Global(module, name))

    def reduce(self) -> None:
        args, called = self.pop(), self.pop()
        if not isinstance(called, Global) or not isinstance(args, tuple):
            raise ValueError("calls something that is not a name")
        if called not in self.calls:
            raise self.unsafe(f"wants to call {called}")
        self.push(self.calls[called](args))

    def build(self) -> None:
        """Attributes of a dict (`_metadata` of a state dict) say nothing about weights and are left out."""
        state = self.pop()
        if not isinstance(self.stack[-1], dict) or not isinstance(state, dict):
            raise self.unsafe("wants to set the state of an object that is no dict")

    def persist(self) -> None:
        saved = self.pop()
        if not isinstance(saved, tuple):
            raise ValueError("a persistent id is no tuple")
        self.push(self.persistent(saved))

    def unsafe(self, wants: str) -> Unreadable:
        return unreadable("unsafe-pickle", self.file, wants, ASK)

    def _unknown(self, name: str, arg: Any) -> Unreadable:
        if name == "INST":
            return self.unsafe(f"wants to make {_named(arg)}")
        if name in ("NEWOBJ", "NEWOBJ_EX", "OBJ"):
            made = next((value for value in reversed(self.stack) if isinstance(value, Global)), "an object")
            return unreadable("unsafe-pickle", self.file, f"wants to make {made}", WHOLE_MODULE)
        return self.unsafe(f"uses the pickle opcode {name}, which no state dict needs")


def _named(arg: str) -> Global:
    module, _, name = arg.partition(" ")
    return Global(module, name)


ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _Machine.skip,
    "FRAME": _Machine.skip,
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "BININT": _Machine.push,
    "BININT1": _Machine.push,
    "BININT2": _Machine.push,
    "LONG1": _Machine.push,
    "BINFLOAT": _Machine.push,
    "BINUNICODE": _Machine.push,
    "SHORT_BINUNICODE": _Machine.push,
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "MARK": lambda m, _: m.mark(),
    "TUPLE": lambda m, _: m.push(tuple(m.since_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "APPEND": lambda m, _: m.extend([m.pop()]),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.since_mark()),
    "BINPUT": _Machine.remember,
    "LONG_BINPUT": _Machine.remember,
    "MEMOIZE": lambda m, _: m.remember(len(m.memo)),
    "BINGET": _Machine.recall,
    "LONG_BINGET": _Machine.recall,
    "GLOBAL": lambda m, arg: m.push(_named(arg)),
    "STACK_GLOBAL": lambda m, _: m.stack_global(),
    "REDUCE": lambda m, _: m.reduce(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.persist(),
}
