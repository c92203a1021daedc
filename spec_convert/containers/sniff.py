"""What a file is, by its first bytes: names lie (pickles called .safetensors occur in the wild)."""

from __future__ import annotations

from typing import Literal

from spec_convert.containers.refusal import damaged, unreadable
from spec_convert.errors import Unreadable

Kind = Literal["safetensors", "torch-zip", "torch-legacy"]
HEAD = 512

ASK = "Ask the publisher for the weights as safetensors."
# First bytes, what they mean, what to do.
_FOREIGN = (
    (b"\x1f\x8b", "is gzip-compressed", "Unpack it first: gunzip FILE"),
    (b"GGUF", "is a GGUF file of llama.cpp", "Take the checkpoint that it was made from."),
    (b"\x89HDF", "is an HDF5 file", ASK),
    (b"\x93NUMPY", "is a numpy array", ASK),
    (b"7z\xbc\xaf", "is a 7z archive", "Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "is zstd-compressed", "Unpack it first: zstd -d FILE"),
)  # fmt: skip


def sniff(head: bytes, *, file: str) -> Kind:
    """The container, from the first ``HEAD`` bytes. Unreadable names what else it is."""
    if not head:
        raise damaged(file, "is empty")
    if head.startswith(b"version https://git-lfs"):
        raise unreadable("git-lfs-pointer", file, "is a git-lfs pointer, not the weights", "Run: git lfs pull")
    # Before the magics: a header of 0x280 bytes makes a sound safetensors file begin like a pickle.
    if head[8:9] == b"{" and not _is_text(head[:8]):
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        return "torch-zip"
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "torch-legacy"
    raise _foreign(head, file)


def _foreign(head: bytes, file: str) -> Unreadable:
    for magic, what, hint in _FOREIGN:
        if head.startswith(magic):
            return damaged(file, what, hint)
    if head[257:262] == b"ustar":
        return damaged(file, "is a tar archive", ASK)
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return damaged(file, "is a web page, not the weights", "The download asked for a login or a wrong address.")
    if _is_text(head[:8]):
        return damaged(file, "is text, not weights", "Name the weight file, or the folder that holds it.")
    return damaged(file, f"is no weight file that is known here (it begins with {head[:8].hex(' ')})", ASK)


def _is_text(head: bytes) -> bool:
    return all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
