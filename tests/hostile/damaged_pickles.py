"""Pickles that reach for code, in every way that the protocol knows, and pickles that never end."""

from __future__ import annotations

from .damaged_torch_files import put, with_members
from .making import add

UNSAFE = "unsafe-pickle"
DAMAGED = "unreadable-container"
PROTO = b"\x80\x04"


def text(word: str) -> bytes:
    raw = word.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


RUN = text("touch executed")


def called(module: str, name: str, args: bytes = RUN) -> bytes:
    """`module.name(args)`, which takes one argument."""
    return PROTO + b"c" + f"{module}\n{name}\n".encode() + args + b"\x85R."


def by_stack(module: str, name: str) -> bytes:
    """The same, with a name from the stack: dots in it lead to attributes."""
    return PROTO + text(module) + text(name) + b"\x93" + RUN + b"\x85R."


CODE = {
    "os.system": called("os", "system"),
    "posix.system": called("posix", "system"),
    "nt.system": called("nt", "system"),
    "eval": called("builtins", "eval", text("__import__('os').system('touch executed')")),
    "eval of Python 2": called("__builtin__", "eval", text("__import__('os').system('touch executed')")),
    "exec": called("builtins", "exec", text("import os; os.system('touch executed')")),
    "getattr": PROTO + b"cbuiltins\ngetattr\ncos\npath\n" + text("system") + b"\x86R.",
    "an import": called("builtins", "__import__", text("antigravity")),
    "subprocess": called("subprocess", "Popen", b"]" + RUN + b"a"),
    "subprocess.getoutput": called("subprocess", "getoutput"),
    "runpy": called("runpy", "run_path"),
    "pty": called("pty", "spawn"),
    "code": called("code", "interact"),
    "pickle itself": called("pickle", "loads", b"C\x01."),
    "torch.load": called("torch", "load"),
    "torch.serialization.load": called("torch.serialization", "load"),
    "torch.hub": called("torch.hub", "load"),
    "a torch extension": called("torch.utils.cpp_extension", "load"),
    "a device": called("torch", "device"),
    "a tensor of numpy": called("numpy.core.multiarray", "_reconstruct"),
    "a rebuild of a subclass": called("torch._tensor", "_rebuild_from_type_v2"),
    "a rebuild of a lying name": called("torch._utils", "_rebuild_tensor_v2.__globals__"),
    "an OrderedDict's class": called("collections", "OrderedDict.__class__"),
    "a reconstructor": called("copyreg", "_reconstructor"),
    "a map over a program": called("builtins", "map"),
    "a dotted name": by_stack("os", "path.os.system"),
    "a name with escapes": by_stack("\x1b[2J", "\x07\n::error::"),
    "a name of half a megabyte": by_stack("o" * 500_000, "system"),
    "a name from a dotted module": by_stack("collections", "abc.sys.modules"),
    "INST": b"\x80\x02(" + RUN + b"ios\nsystem\n.",
    "OBJ": b"\x80\x02(cos\nsystem\n" + RUN + b"o.",
    "NEWOBJ": PROTO + b"csubprocess\nPopen\n" + RUN + b"\x85\x81.",
    "NEWOBJ_EX": PROTO + b"csubprocess\nPopen\n" + RUN + b"\x85}\x92.",
    "BUILD of a name": PROTO + b"cos\nsystem\n}" + text("__setstate__") + b"cos\nsystem\nsb.",
    "BUILD of a list": PROTO + b"]}b.",
    "BUILD with a state of its own": PROTO + b"}" + RUN + b"b.",
    "BUILD with slots": PROTO + b"}}}\x86b.",
    "EXT1": PROTO + b"\x82\x01)R.",
    "EXT2": PROTO + b"\x83\x01\x00)R.",
    "EXT4": PROTO + b"\x84\x01\x00\x00\x00)R.",
    "PERSID": PROTO + b"Pos.system\n.",
    "a buffer from outside": PROTO + b"\x97.",
    "a read-only buffer": PROTO + b"\x98.",
    "a set": PROTO + b"\x8f.",
    "a byte array": PROTO + b"\x96" + (2**40).to_bytes(8, "little") + b"x.",
    "protocol 0 text": PROTO + b"S'os'\n.",
    "protocol 0 number": PROTO + b"I1_0\n.",
    "protocol 0 float": PROTO + b"Fnan\n.",
    "DUP": PROTO + b"}2.",
    "POP_MARK": PROTO + b"(1}.",
    "LONG4 of two gigabytes": PROTO + b"\x8b\xff\xff\xff\x7f" + b"1.",
    "text of four exabytes": PROTO + b"\x8d" + (2**62).to_bytes(8, "little") + b"x.",
}
BROKEN = {
    "a storage that is a module": PROTO + b"(" + text("storage") + b"cos\nsystem\n" + text("0") + text("cpu")
    + b"K\x01tQ.",
    "a persistent id that is text": PROTO + RUN + b"Q.",
    "a persistent id of a thousand million elements": PROTO + b"}" + text("fc.weight") + b"("
    + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"\x8a\x08" + b"\xff" * 7 + b"\x7ftQs.",
    "a call of text": PROTO + RUN + b")R.",
    "a call with a list": PROTO + b"cos\nsystem\n]R.",
    "a name that is a number": PROTO + b"K\x01K\x02\x93.",
    "an unknown opcode": PROTO + b"\xff.",
    "no opcode": PROTO,
    "only an end": PROTO + b".",
    "a mark too few": PROTO + b"t.",
    "a value too few": PROTO + b"\x87.",
    "a memo that was never filled": PROTO + b"h\x05.",
    "a protocol of the future": b"\x80\xff}.",
    "a frame of four exabytes": PROTO + b"\x95" + (2**62).to_bytes(8, "little") + b"}.",
    "a frame that ends too early": PROTO + b"\x95" + (1).to_bytes(8, "little") + b"}" + text("a") + b"K\x01s.",
    "text that is not UTF-8": PROTO + b"X\x02\x00\x00\x00\xff\xfe.",
    "text of two gigabytes": PROTO + b"X\xff\xff\xff\x7fx.",
    "a list that holds itself": PROTO + b"}" + text("a") + b"]\x94h\x00as.",
    "a dict that holds itself": PROTO + b"}\x94" + text("a") + b"h\x00s.",
    "a dict as its own key": PROTO + b"}\x94h\x00K\x01s.",
    "a tuple that takes for ever to hash": PROTO + b"})"
    + b"".join(b"q%ch%c\x86" % (n, n) for n in range(100)) + b"K\x01s.",
    "forty lists doubled": PROTO + b"]q\0" + b"".join(b"](h%ch%ceq%c" % (n - 1, n - 1, n) for n in range(1, 41))
    + b"}" + text("a") + b"h\x28s.",
    "three hundred thousand tuples in each other": PROTO + b")" + b"\x85" * 300_000 + b".",
    "a million lists": PROTO + b"]" * 999_000 + b".",
    "three hundred thousand dicts": PROTO + b"}" * 300_000 + b".",
    "three hundred thousand marks": PROTO + b"(" * 300_000 + b".",
    "a million places in the memo": PROTO + b"N" + b"\x94" * 999_000 + b".",
    "a hundred megabytes": PROTO + b"}" + text("a" * 3_000_000) + b"K\x01s.",
    "an empty dict": PROTO + b"}.",
    "a number": PROTO + b"K\x01.",
    "a tensor without a storage": PROTO + b"}" + text("fc.weight")
    + b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00K\x01\x85K\x01\x85\x89}tRs.",
    "a tensor of nothing": PROTO + b"}" + text("fc.weight") + b"ctorch._utils\n_rebuild_tensor_v2\n)Rs.",
    "an OrderedDict of a program": PROTO + b"ccollections\nOrderedDict\n" + RUN + b"\x85R.",
}  # fmt: skip

for name, raw in CODE.items():
    add(f"pickle: {name}", UNSAFE, put(raw), few=True)
    add(f"torch zip of a pickle: {name}", UNSAFE, put(with_members(**{"data.pkl": raw})))
for name, raw in BROKEN.items():
    long = len(raw) > 200_000
    if b"torch" not in raw and b"OrderedDict" not in raw:  # by themselves, pickles have nothing to call at all
        add(f"pickle: {name}", DAMAGED, put(raw), few=True)
    if not long:
        add(f"torch zip of a pickle: {name}", DAMAGED, put(with_members(**{"data.pkl": raw})))
