"""Safetensors files that lie: about lengths, offsets, shapes and names, or that are meant to exhaust the reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .making import EAGLE3, Draft, Make, add, case, safetensors, sparse

DAMAGED = "unreadable-container"
FUSION = "fc.weight"
ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def announced(length: int) -> Make:
    return lambda draft: draft.weights.write_bytes(safetensors(draft.header, draft.data, length=length))


for number in (2**64 - 1, 2**63, 2**63 - 1, 2**32, 100_000_000, 1, 0):
    add(f"a header that announces {number} bytes", DAMAGED, announced(number))


def raw(content: bytes | Callable[[], bytes]) -> Make:
    return lambda draft: draft.weights.write_bytes(content if isinstance(content, bytes) else content())


for name, content in {
    "no byte": b"",
    "seven bytes": bytes(7),
    "only a length": (2**40).to_bytes(8, "little"),
    "a header and no data": safetensors({"fc.weight": ONE}),
    "a header that is a list": safetensors(b"[]"),
    "a header of a hundred thousand lists in each other": safetensors(b'{"a":' + b"[" * 100_000),
    "a header of a hundred thousand objects in each other": safetensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    "a header that is not UTF-8": safetensors(b'{"\xff\xfe": 1}'),
    "a header of UTF-16": safetensors('{"a": 1}'.encode("utf-16")),
    "a header that ends in zeros": safetensors(b'{"a": 1}\0\0\0'),
    "a name twice": safetensors(b'{"a":%b,"a":%b}' % ((json.dumps(ONE).encode(),) * 2), bytes(4)),
    "half a UTF-16 pair as a name": safetensors(b'{"\\ud800":%b}' % json.dumps(ONE).encode(), bytes(4)),
    "metadata that is a list": safetensors({"__metadata__": [1], "a": ONE}, bytes(4)),
    "metadata with a number": safetensors({"__metadata__": {"step": 1}, "a": ONE}, bytes(4)),
    "thirty megabytes of spaces": lambda: safetensors(b'{"a": 1' + b" " * 30_000_000 + b"}"),
    "three million lists": lambda: safetensors(b'{"a":[' + b"[]," * 3_000_000 + b"[]]}"),
    "nearly too many lists": lambda: safetensors(b'{"a":[' + b"[]," * 249_000 + b"[]]}"),
    "nearly too many objects": lambda: safetensors(b'{"a":[' + b'{"b":0.5},' * 249_000 + b"0]}"),
    "nearly too many names": lambda: safetensors(b"{" + b",".join(b'"%d":1' % n for n in range(499_000)) + b"}"),
    "ten megabytes of metadata": safetensors({"__metadata__": {"a": "\U0001f600" * 2_000_000}}, bytes(4)),
    "a number of a hundred thousand digits": safetensors(b'{"a": %b}' % (b"9" * 100_000)),
}.items():
    add(f"safetensors: {name}", DAMAGED, raw(content), few=callable(content))


def entry(**changes: Any) -> Make:
    """Another entry for the fusion layer."""
    return lambda draft: draft.set_header(lambda header: header[FUSION].update(changes))


for name, changes in {
    "offsets beyond the file": {"data_offsets": [4096, 10**12]},
    "offsets that overlap": {"data_offsets": [4000, 6048]},
    "offsets that leave a gap": {"data_offsets": [4100, 6148]},
    "offsets in reverse": {"data_offsets": [6144, 4096]},
    "negative offsets": {"data_offsets": [-2048, 0]},
    "offsets of 2^63": {"data_offsets": [2**63, 2**63 + 2048]},
    "offsets that are fractions": {"data_offsets": [4096.0, 6144.0]},
    "offsets that are truth values": {"data_offsets": [False, True]},
    "offsets that are not numbers": {"data_offsets": [float("nan"), float("inf")]},
    "three offsets": {"data_offsets": [4096, 5000, 6144]},
    "no offsets": {"data_offsets": None},
    "a thousand million elements": {"shape": [10**9]},
    "elements beyond 64 bits": {"shape": [2**32, 2**32]},
    "elements that wrap around to the right number": {"shape": [2**63, 2, 512]},
    "no elements, of a size beyond 64 bits": {"shape": [0, 2**63]},
    "no elements, of many": {"shape": [0, 10**9]},
    "a thousand dimensions": {"shape": [1] * 1000},
    "a negative size": {"shape": [-16, -32]},
    "a size that is a fraction": {"shape": [16.0, 32]},
    "a size that is a truth value": {"shape": [True, 512]},
    "a size of NaN": {"shape": [float("nan")]},
    "a shape that is text": {"shape": "16"},
    "a shape that is an object": {"shape": {"0": 16}},
    "an unknown dtype": {"dtype": "F99"},
    "a dtype that is a list": {"dtype": ["F32"]},
    "a dtype of four bits": {"dtype": "F4"},
}.items():
    add(f"safetensors: {name}", DAMAGED, entry(**changes))


def named(name: str) -> Make:
    nothing = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return lambda draft: draft.set_header(lambda header: header.update({name: nothing}))


for name, odd, rule in (
    ("an empty name", "", DAMAGED),
    ("a name that clears the screen", "\x1b[2Jfc.weight", DAMAGED),
    ("a name of several lines", "fc.weight\n::error::you are hacked", DAMAGED),
    ("a name that turns the text around", "fc\u202e.weight", DAMAGED),
    ("a name with a zero", "fc.weight\0", DAMAGED),
    ("a name like a path", "../../etc/passwd", "unclaimed-tensor"),
    ("a name like a template", "{0.__class__}%s${HOME}", "unclaimed-tensor"),
    ("a layer of nine hundred digits", f"layers.{'9' * 900}.self_attn.q_proj.weight", "unclaimed-tensor"),
    ("a layer of eighteen digits", f"layers.{'9' * 18}.self_attn.q_proj.weight", "missing-tensor"),
    ("a name of a megabyte", "a" * 1_000_000, DAMAGED),
    ("a name of a hundred thousand segments", "layers.0." * 100_000, DAMAGED),
    ("a name of a hundred thousand wrappers", "module." * 100_000 + FUSION, DAMAGED),
):
    add(f"safetensors: {name}", rule, named(odd))


@case("ten thousand tensors without elements", "unclaimed-tensor", few=True)
def many(draft: Draft) -> None:
    nothing = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    draft.set_header(lambda header: header.update({f"layers.{n}.x": nothing for n in range(10_000)}))


@case("a header of a hundred megabytes", DAMAGED)
def hundred_megabytes(draft: Draft) -> None:
    sparse(draft.weights, 200_000_000, (100_000_000).to_bytes(8, "little") + b'{"a":')


@case("a header of thirty megabytes of zeros", DAMAGED)
def zeros(draft: Draft) -> None:
    sparse(draft.weights, 200_000_000, (30_000_000).to_bytes(8, "little") + b"{")


@case("a file of a terabyte", DAMAGED)
def terabyte(draft: Draft) -> None:
    sparse(draft.weights, 1 << 40, draft.weights.read_bytes())


def swollen(draft: Draft, name: str, dtype: str, shape: list[int], size: int) -> None:
    """One tensor made as large as it says it is, on a disk that does not notice."""
    header, data = without(name, draft.header, draft.data)
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
    start = safetensors(header, data)
    sparse(draft.weights, len(start) + size, start)


def without(name: str, header: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    header.pop("__metadata__", None)
    begin, end = header.pop(name, {"data_offsets": [0, 0]})["data_offsets"]
    for one in header.values():
        if one["data_offsets"][0] >= end:
            one["data_offsets"] = [offset - (end - begin) for offset in one["data_offsets"]]
    return header, data[:begin] + data[end:]


@case("a vocabulary map of a thousand million tokens", "config-key-invalid", base=EAGLE3)
def vocabulary_map(draft: Draft) -> None:
    swollen(draft, "d2t", "I64", [10**9], 8 * 10**9)
    draft.set_config(draft_vocab_size=10**9, vocab_size=2 * 10**9)


@case("a mask of a thousand million tokens", "config-key-invalid", base=EAGLE3)
def mask(draft: Draft) -> None:
    swollen(draft, "t2d", "BOOL", [10**9], 10**9)
    draft.set_config(vocab_size=10**9)


@case("a vocabulary of a thousand million tokens without a mask", "config-key-invalid", base=EAGLE3)
def no_mask(draft: Draft) -> None:
    header, data = without("t2d", draft.header, draft.data)
    draft.weights.write_bytes(safetensors(header, data))
    draft.set_config(vocab_size=10**9)


@case("a norm of a hundred million elements", "refused-tensor", few=True)
def norm(draft: Draft) -> None:
    swollen(draft, "layers.0.input_layernorm.weight", "F32", [10**8], 4 * 10**8)


@case("a bias of a hundred million elements", "wrong-shape", few=True)
def bias(draft: Draft) -> None:
    swollen(draft, "fc.bias", "F32", [10**8], 4 * 10**8)


@case("a placeholder of a hundred million elements", "wrong-shape", few=True)
def placeholder(draft: Draft) -> None:
    swollen(draft, "fc.bias", "F32", [10**8], 4 * 10**8)
    draft.set_config(architectures=["LlamaForCausalLMEagle"])
