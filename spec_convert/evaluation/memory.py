"""When memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from spec_convert.errors import UsageError


@contextmanager
def enough_memory(hint: str) -> Iterator[None]:
    """What torch raises when it gets no memory, on a GPU or the CPU, is a UsageError with this ``hint``."""
    import torch

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        first = str(error).partition("\n")[0]
        raise UsageError(f"there is not enough memory: {first}", hint=hint) from error
