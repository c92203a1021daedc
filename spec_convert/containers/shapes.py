"""What any file may say of one tensor: a printable name and a shape that a machine can hold."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from spec_convert.containers.refusal import damaged

MAX_DIMENSIONS = 32  # numpy before version 2 holds no more
MAX_LETTERS = 1000  # real names have a tenth of it; names are split, compared and printed


def check_name(name: str, file: str) -> None:
    if len(name) > MAX_LETTERS:
        raise damaged(file, f"has a tensor with a name of {len(name)} letters, {name[:40]!a} at first")
    # Names are printed: control characters could rewrite a terminal or a CI log.
    if not name or not name.isprintable():
        raise damaged(file, f"has a tensor with the unprintable name {name!a}")


def check_shape(name: str, shape: Any, file: str) -> tuple[int, ...]:
    """The shape as a tuple of sizes, 0 allowed."""
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise damaged(file, f"{name} has no shape")
    if len(shape) > MAX_DIMENSIONS:
        raise damaged(file, f"{name} has {len(shape)} dimensions, more than {MAX_DIMENSIONS}")
    if any(type(size) is not int or size < 0 for size in shape):
        raise damaged(file, f"{name} has a shape that is not made of sizes")
    if prod(max(size, 1) for size in shape) >= 2**63:
        raise damaged(file, f"{name} has a shape that no machine can hold")
    return tuple(shape)
