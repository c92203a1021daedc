"""Writing hidden states beside the engine: by threads, no further behind than the memory allows, each file whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import torch
from torch import Tensor

from spec_convert.serving.capture import failure_of

THREADS = 4  # a disk is slower than a GPU, and safetensors lets go of the interpreter while it writes
MOST_WAITING = 1 << 30  # bytes of states that may wait for the disk


class Writers:
    """The threads, and what they have not written yet."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="hidden-states")
        self._writing: dict[Future[None], int] = {}  # and how many bytes each holds

    def make_room(self, size: int) -> None:
        """Wait until ``size`` more bytes may wait for the disk. Raises what a thread could tell nobody else."""
        while self._writing:
            full = sum(self._writing.values()) + size > MOST_WAITING
            for done in wait(self._writing, timeout=None if full else 0, return_when=FIRST_COMPLETED).done:
                del self._writing[done]
                done.result()
            if not full:
                return

    def submit(self, path: Path, token_ids: Sequence[int], states: Callable[[], Tensor], size: int) -> None:
        """Write the file ``path`` as soon as a thread is free; ``states``, ``size`` bytes, waits for the tensor."""
        self._writing[self._threads.submit(write, path, token_ids, states)] = size

    def close(self) -> None:
        self._threads.shutdown()


def write(path: Path, token_ids: Sequence[int], states: Callable[[], Tensor]) -> None:
    """One request's file, whole or not at all. Whoever waits for it is told when it cannot be written."""
    from safetensors.torch import save_file

    partial = path.with_suffix(".partial")
    try:
        rows = states()
        if not rows.isfinite().all():
            raise ValueError(f"not all of the states are finite numbers in {str(rows.dtype).removeprefix('torch.')}")
        save_file({"hidden_states": rows.contiguous(), "token_ids": torch.tensor(token_ids)}, partial)
        partial.rename(path)
    except Exception as error:
        partial.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")  # shorter: a full disk has room for it
        partial.rename(failure_of(path))
