"""The data-only pickle reader: what it understands, and that everything else is named and never done."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import pytest

from spec_convert.containers import pickle_reader
from spec_convert.containers.pickle_reader import Global, read_pickle
from spec_convert.errors import Unreadable

PROTO = b"\x80\x04"


def no_storage(saved: tuple[Any, ...]) -> object:
    raise ValueError("a storage where none belongs")


def read(raw: bytes, start: int = 0) -> tuple[object, int]:
    return read_pickle(io.BytesIO(raw), file="data.pkl", start=start, calls={}, persistent=no_storage)


def refused(raw: bytes) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        read(raw)
    return caught.value


class Calling:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value", [None, True, 0, -1, 300, 70_000, 2**80, 0.5, "x", "ä" * 300, (), (1,), (1, 2, 3, 4), [], [1], [[1], 2], {},
              {"a": 1}, {1: {"b": (2.5, [])}}, ["same", "same"]]
)  # fmt: skip
def test_plain_values_are_what_pickle_made_them_of(value: object, protocol: int) -> None:
    raw = pickle.dumps(value, protocol)
    assert read(raw) == (value, len(raw))


def test_several_pickles_in_a_row_are_read_one_by_one() -> None:
    first = pickle.dumps([1], 2)
    assert read(first + pickle.dumps([2], 2), start=len(first))[0] == [2]


def test_a_name_is_an_inert_token() -> None:
    assert read(pickle.dumps(eval, 2))[0] in (Global("__builtin__", "eval"), Global("builtins", "eval"))
    assert read(pickle.dumps(eval, 4))[0] == Global("builtins", "eval")


@pytest.mark.parametrize(
    ("value", "wants"),
    [
        (Calling(eval, "1/0"), "wants to call builtins.eval"),
        (Calling(getattr, "a", "upper"), "wants to call builtins.getattr"),
        (Calling(__import__, "os"), "wants to call builtins.__import__"),
        (ValueError("x"), "wants to call builtins.ValueError"),
        (io.BytesIO(b"x"), "_io.BytesIO"),
        ({1, 2}, "opcode EMPTY_SET"),
        (b"bytes", "opcode SHORT_BINBYTES"),
    ],
)
def test_everything_but_plain_values_is_refused_by_its_name(value: object, wants: str) -> None:
    error = refused(pickle.dumps(value, 4))
    assert error.finding.rule == "unsafe-pickle"
    assert wants in error.message
    assert "safetensors" in error.hint


@pytest.mark.parametrize(
    "raw",
    [
        b"(iposix\nsystem\n.",  # INST
        b"(cposix\nsystem\nX\x01\x00\x00\x00lo.",  # OBJ
        b"cposix\nsystem\n)\x81.",  # NEWOBJ
        b"cposix\nsystem\n)}\x92.",  # NEWOBJ_EX
        b"cposix\nsystem\nX\x01\x00\x00\x00l\x85R.",  # REDUCE
        b"X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93)R.",  # STACK_GLOBAL, REDUCE
    ],
)
def test_every_way_of_calling_a_name_is_refused(raw: bytes) -> None:
    assert "posix.system" in refused(PROTO + raw).message


@pytest.mark.parametrize(
    "opcode",
    [opcode for opcode in pickletools.opcodes if opcode.name not in pickle_reader.ACTIONS and opcode.name != "STOP"],
    ids=lambda opcode: opcode.name,
)
def test_an_opcode_outside_the_table_is_refused(opcode: pickletools.OpcodeInfo) -> None:
    refused(PROTO + b"N" + opcode.code.encode("latin-1") + b"1\n1\n" + bytes(16) + b".")


@pytest.mark.parametrize(
    "raw",
    [b"", b".", b"\x85.", b"t.", b"h\x07.", b"R.", b"N)R.", b"Nb.", b"]Nb.", b"NNs.", b"]Na", b"K\x01K\x02a.", b"}(Nu.",
     b"}]Ns.", b"Q.", b"NQ.", b")Q.", b"\x93.", b"NN\x93.", b"X\xff\xff\xff\xffab.", b"X\x01\x00\x00\x00\xff."],
)  # fmt: skip
def test_a_pickle_that_makes_no_sense_is_refused(raw: bytes) -> None:
    assert refused(PROTO + raw).finding.rule in ("unreadable-container", "unsafe-pickle")


@pytest.mark.parametrize("prefix", [b"\x8d", b"\x8e", b"\x96"])  # BINUNICODE8, BINBYTES8, BYTEARRAY8
def test_a_length_of_four_exabytes_allocates_nothing(prefix: bytes) -> None:
    refused(PROTO + prefix + (2**62).to_bytes(8, "little") + b"x")


def test_a_pickle_larger_than_the_cap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_reader, "MAX_BYTES", 100)
    assert read(pickle.dumps("x" * 50, 4))
    assert refused(pickle.dumps(list(range(100)), 4)).finding.rule == "unreadable-container"


@pytest.mark.timeout(60)
def test_a_key_that_would_take_for_ever_to_hash_is_refused() -> None:
    # t = (t, t), a hundred times: two hundred bytes, 2**100 steps to hash.
    doubled = PROTO + b"})" + b"".join(b"q%ch%c\x86" % (n, n) for n in range(100))
    assert "neither text nor number" in refused(doubled + b"Ns.").message


def test_a_nesting_of_a_million_does_not_break_the_interpreter() -> None:
    refused(PROTO + b")" + b"\x85" * 1_000_000)


def test_a_long_or_unprintable_name_is_shown_short_and_harmless() -> None:
    message = refused(PROTO + b"c\x1b[2J\n" + b"x" * 5000 + b"\n)R.").message
    assert "\\x1b[2J" in message
    assert message.isprintable()
    assert len(message) < 700
