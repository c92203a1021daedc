"""Memory that is kept between the steps of a training on the CPU."""

from __future__ import annotations

import ctypes

# glibc's parameters of `mallopt`, and what they are set to.
KEEP_ALL = {-4: 0, -1: 2**31 - 1}  # M_MMAP_MAX: no block of its own; M_TRIM_THRESHOLD: give back nothing below 2 GiB


def keep_freed_memory() -> None:
    """Let the C library keep what tensors free, for the tensors of the next step.

    Otherwise it returns large blocks to the system, which clears each page anew when the next step asks for it: a sixth
    of the time of EAGLE-1 on SmolLM2, whose tiles of logits are as large as that. Does nothing where there is no glibc.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        for parameter, value in KEEP_ALL.items():
            library.mallopt(parameter, value)
