"""A signal that asks to stop is heard between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from spec_convert.training.trainer.processes import Processes

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """The signal that came to this process, or 0."""

    signal = 0

    def agreed(self, processes: Processes) -> int:
        """The signal that came to any process, or 0: the same answer in all of them, which must all ask."""
        came = processes.total(torch.tensor([self.signal == number for number in SIGNALS], dtype=torch.int64))
        return next((number for number, times in zip(SIGNALS, came.tolist(), strict=True) if times), 0)


@contextmanager
def stopping(*, alone: bool) -> Iterator[Stop]:
    """Hear SIGTERM and SIGINT in this block instead of ending by them.

    ``alone``: a second signal ends the process at once, as before. Processes of one launcher get each signal from the
    terminal and from the launcher, and so do not listen twice. Outside of the main thread nothing is heard.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def hear(number: int, frame: FrameType | None) -> None:
        stop.signal = stop.signal or number
        if alone:
            restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in SIGNALS:
        signal.signal(number, hear)
    try:
        yield stop
    finally:
        restore()
