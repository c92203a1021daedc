"""What torch.save writes, damaged: zip archives that lie or explode, and the legacy format with sizes that lie."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable
from functools import cache

import torch
from safetensors.torch import load_file

from .making import EAGLE, Draft, Make, add, case, sparse

DAMAGED = "unreadable-container"
ROOT = "archive"
Members = dict[str, bytes]


@cache
def sound(*, legacy: bool = False) -> bytes:
    """The weights of the control as torch.save writes them."""
    written = io.BytesIO()
    tensors = load_file(EAGLE / "checkpoint" / "model.safetensors")
    torch.save(tensors, written, _use_new_zipfile_serialization=not legacy)
    return written.getvalue()


@cache
def members() -> Members:
    with zipfile.ZipFile(io.BytesIO(sound())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(content: Members | list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice is meant
        for name, data in content.items() if isinstance(content, dict) else content:
            archive.writestr(name, data)
    return written.getvalue()


def put(raw: bytes | Callable[[], bytes], name: str = "pytorch_model.bin") -> Make:
    def make(draft: Draft) -> None:
        draft.weights.unlink()
        (draft.checkpoint / name).write_bytes(raw if isinstance(raw, bytes) else raw())

    return make


def with_members(**changes: bytes | None) -> Callable[[], bytes]:
    """The sound archive with members changed, added or (None) removed; their names are below the root."""

    def make() -> bytes:
        new: Members = {}
        for name, data in (members() | {f"{ROOT}/{n}": d for n, d in changes.items() if d is not None}).items():
            if changes.get(name.partition("/")[2], data) is not None:
                new[name] = data
        return zipped(new)

    return make


def patched(change: Callable[[bytearray], object]) -> Callable[[], bytes]:
    """An archive without zip64 records, which would overrule the ones that are changed here."""

    def make() -> bytes:
        raw = bytearray(zipped(members()))
        change(raw)
        return bytes(raw)

    return make


def central(raw: bytearray, at: int, form: str, value: int, *, name: str = "") -> None:
    """A field of the zip directory set, for all entries or for the one whose name ends so."""
    here = raw.find(b"PK\x01\x02")
    while here >= 0:
        length = struct.unpack_from("<H", raw, here + 28)[0]
        if raw[here + 46 : here + 46 + length].decode().endswith(name):
            struct.pack_into(form, raw, here + at, value)
        here = raw.find(b"PK\x01\x02", here + 4)


def end(raw: bytearray, at: int, form: str, value: int) -> None:
    """A field of the record at the end."""
    struct.pack_into(form, raw, raw.rfind(b"PK\x05\x06") + at, value)


add("torch zip: sound", None, put(sound))
add("torch zip: with another name", None, put(sound, "model.safetensors"))
add("torch zip: deflated", DAMAGED, put(lambda: zipped(members(), zipfile.ZIP_DEFLATED)))
add("torch zip: deflated with LZMA", DAMAGED, put(lambda: zipped(members(), zipfile.ZIP_LZMA)))
for name, change in {
    "no pickle": {"data.pkl": None},
    "no storage": {"data/0": None},
    "an empty storage": {"data/0": b""},
    "an empty pickle": {"data.pkl": b""},
    "a pickle without end": {"data.pkl": b"\x80\x02}"},
    "a program": {"constants.pkl": b"\x80\x02)."},
    "another byte order": {"byteorder": b"big"},
    "a byte order of garbage": {"byteorder": b"\x1b[2J" * 100},
}.items():
    add(f"torch zip: {name}", DAMAGED, put(with_members(**change)))

for name, path in {
    "an absolute path": "/etc/cron.d/x", "a path upwards": "../../../outside/x", "a drive": "C:\\x",
    "escapes": "archive/\x1b[2J", "a module": "archive/code/__torch__.py", "an archive": "archive/data/inner.zip",
}.items():  # fmt: skip
    extra = {f"{path}": b"x"}
    add(f"torch zip: a member that is {name}", None, put(lambda extra=extra: zipped(members() | extra)))

for name, lie in {
    "an encrypted member": lambda raw: central(raw, 8, "<H", 0x801),
    "a compressed pickle that says so": lambda raw: central(raw, 10, "<H", 8, name="data.pkl"),
    "an unknown compression": lambda raw: central(raw, 10, "<H", 99),
    "a member of four gigabytes": lambda raw: central(raw, 24, "<I", 2**32 - 2, name="data/0"),
    "a pickle of four gigabytes": lambda raw: central(raw, 24, "<I", 2**32 - 2, name="data.pkl"),
    "a member with a size of zip64 and no zip64": lambda raw: central(raw, 24, "<I", 2**32 - 1, name="data/0"),
    "members that lie elsewhere": lambda raw: central(raw, 42, "<I", 7),
    "members beyond the file": lambda raw: central(raw, 42, "<I", 2**32 - 2),
    "all members in one place": lambda raw: central(raw, 42, "<I", 0),
    "a version from the future": lambda raw: central(raw, 6, "<B", 99),
    "a directory of four gigabytes": lambda raw: end(raw, 12, "<I", 2**32 - 2),
    "a directory beyond the file": lambda raw: end(raw, 16, "<I", 2**32 - 2),
    "a directory of nothing": lambda raw: end(raw, 12, "<I", 0),
    "no directory": lambda raw: raw.__delitem__(slice(raw.find(b"PK\x01\x02"), None)),
    "half a directory": lambda raw: raw.__delitem__(slice(raw.find(b"PK\x01\x02") + 100, None)),
    "a local header of another name": lambda raw: raw.__setitem__(slice(30, 37), b"ARCHIVE"),
    "a local header that says compressed": lambda raw: struct.pack_into("<H", raw, 8, 8),
}.items():
    add(f"torch zip: {name}", DAMAGED, put(patched(lie)))


add(
    "torch zip: bytes before it",
    None,
    put(patched(lambda raw: raw.__setitem__(slice(0, 0), b"PK\x03\x04" + bytes(99)))),
)


@case("torch zip: a wrong checksum", None)
def checksum(draft: Draft) -> None:
    """Torch can be told to write none, so it tells nothing."""
    put(patched(lambda raw: central(raw, 16, "<I", 0)))(draft)


@case("torch zip: a member twice", DAMAGED)
def twice(draft: Draft) -> None:
    put(zipped([*members().items(), (f"{ROOT}/data/0", b"x" * 4096)]))(draft)


@case("torch zip: two pickles", DAMAGED)
def two_pickles(draft: Draft) -> None:
    put(zipped(members() | {"other/data.pkl": members()[f"{ROOT}/data.pkl"]}))(draft)


@case("torch zip: an archive in an archive", DAMAGED)
def nested(draft: Draft) -> None:
    put(zipped({"archive/pytorch_model.bin": sound()}))(draft)


@case("torch zip: a pickle of a hundred megabytes, deflated", DAMAGED)
def bomb(draft: Draft) -> None:
    def hundred_megabytes() -> bytes:
        written = io.BytesIO()
        with (
            zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open(f"{ROOT}/data.pkl", "w", force_zip64=True) as stream,
        ):
            for _ in range(10):
                stream.write(bytes(10_000_000))
        return written.getvalue()

    put(hundred_megabytes)(draft)


@case("torch zip: two hundred thousand members", DAMAGED)
def many_members(draft: Draft) -> None:
    """Only the directory: who believes it builds two hundred thousand objects."""
    raw = sound()
    one = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0)
    listed = b"".join(one + b"%05x" % number for number in range(200_000))
    last = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 65535, 65535, len(listed), len(raw), 0)
    put(raw + listed + last)(draft)


@case("torch zip: a sparse directory of three gigabytes", DAMAGED)
def sparse_directory(draft: Draft) -> None:
    size = 3 << 30
    draft.weights.unlink()
    path = draft.checkpoint / "pytorch_model.bin"
    sparse(path, size, sound())
    with path.open("ab") as stream:
        stream.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, size - 100_000, 100_000, 0))


@case("torch zip: zip64 sizes beyond 2^63", DAMAGED)
def zip64(draft: Draft) -> None:
    """The directory's own extension, with the offset of the first member where no file reaches."""
    name = f"{ROOT}/data.pkl".encode()
    extra = struct.pack("<2H3Q", 1, 24, 2**63 + 5, 2**63 + 5, 2**63 + 5)
    listed = struct.pack(
        "<4s6H3I5H2I", b"PK\x01\x02", 45, 45, 0, 0, 0, 0, 0, 2**32 - 1, 2**32 - 1, len(name), len(extra), 0, 0, 0, 0,
        2**32 - 1,
    )  # fmt: skip
    raw = sound()
    directory = listed + name + extra
    put(raw + directory + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), len(raw), 0))(draft)


@case("torch zip: weights of four gigabytes out of one number", DAMAGED)
def stretched(draft: Draft) -> None:
    """A view with strides of zero repeats one element as often as it likes."""
    written = io.BytesIO()
    torch.save({"fc.weight": torch.zeros(1).expand(2**15, 2**15)}, written)
    put(written.getvalue())(draft)


@case("torch zip: a thousand layers out of one storage", DAMAGED)
def repeated(draft: Draft) -> None:
    written, one = io.BytesIO(), torch.zeros(16, 16)
    torch.save({f"layers.{n}.self_attn.q_proj.weight": one for n in range(1000)}, written)
    put(written.getvalue())(draft)


for name, more in (("more", 1), ("fewer", -1)):

    @case(f"legacy torch: a storage with {name} elements than it has", DAMAGED)
    def last_storage(draft: Draft, value: int = more) -> None:
        """The count stands before each storage; the first is after the fifth pickle, the list of their keys."""
        stream = io.BytesIO(sound(legacy=True))
        for _ in range(5):
            list(pickletools.genops(stream))
        raw, at = bytearray(stream.getvalue()), stream.tell()
        struct.pack_into("<Q", raw, at, struct.unpack_from("<Q", raw, at)[0] + value)
        put(bytes(raw))(draft)


def legacy_with(number: int, value: object) -> Callable[[], bytes]:
    """One of the five pickles at the beginning replaced."""

    def make() -> bytes:
        stream = io.BytesIO(sound(legacy=True))
        parts = []
        for _ in range(3):
            begin = stream.tell()
            pickle.load(stream)
            parts.append(sound(legacy=True)[begin : stream.tell()])
        rest = stream.read()
        parts[number] = pickle.dumps(value, 2)
        return b"".join([*parts, rest])

    return make


add("legacy torch: sound", None, put(lambda: sound(legacy=True)))
add("legacy torch: another magic number", DAMAGED, put(legacy_with(0, 1)))
add("legacy torch: a magic number that is a list", DAMAGED, put(legacy_with(0, [[1]])))
add("legacy torch: another version", DAMAGED, put(legacy_with(1, 2**200)))
add("legacy torch: a machine that is a list", DAMAGED, put(legacy_with(2, [1])))
add("legacy torch: a big-endian machine", DAMAGED, put(legacy_with(2, {"little_endian": False})))
add("legacy torch: cut short", DAMAGED, put(lambda: sound(legacy=True)[:-100]))
add("legacy torch: bytes at the end", DAMAGED, put(lambda: sound(legacy=True) + b"x"))
