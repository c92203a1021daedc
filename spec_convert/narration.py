"""What the program says while it works: on stderr, through loguru, and only when somebody listens."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loguru import Logger
    from tqdm import tqdm

LONG = 200_000_000  # bytes: what takes less than about a second to copy needs no bar
EVERY = 30.0  # seconds from one line about long work to the next


class _Listener:
    """Whether the command line wants to hear; a library user hears nothing unless asked for."""

    wanted = False


def listen(*, wanted: bool = True) -> None:
    """Let narration be shown on stderr from now on, or stop it."""
    _Listener.wanted = wanted


def say(message: str) -> None:
    """One line of narration: an event, never a finding."""
    if _Listener.wanted:
        _logger().info(message)


@contextmanager
def progress(total: int, *, unit: str = "B", aloud: bool = False) -> Iterator[Callable[[int], object]]:
    """What to call with each number of bytes (or other units) done.

    Long work draws a bar, when somebody looks at it on a terminal. ``aloud``: elsewhere it says a line now and then.
    """
    long = total > LONG if unit == "B" else total > 1
    if not (_Listener.wanted and long and (aloud or sys.stderr.isatty())):
        yield lambda _: None
        return
    with bar(total, unit=unit, leave=False) as drawn:
        yield _in_lines(total, unit) if drawn is None else drawn.update


@contextmanager
def bar(total: int, *, unit: str, done: int = 0, leave: bool = True) -> Iterator[tqdm[Any] | None]:
    """A bar of which ``done`` is done already; None when nobody looks at it on a terminal."""
    if not (_Listener.wanted and sys.stderr.isatty()):
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=done, unit=unit, unit_scale=total >= 10_000, leave=leave) as drawn:
        yield drawn


def _in_lines(total: int, unit: str) -> Callable[[int], object]:
    started = told = time.monotonic()
    done = 0

    def advance(more: int) -> None:
        nonlocal told, done
        done += more
        if (now := time.monotonic()) - told >= EVERY:
            told, speed = now, done / (now - started)
            say(f"{done:,} of {total:,} {unit}s, {speed:,.0f} {unit}s/s, about {length((total - done) / speed)} to go")

    return advance


def length(seconds: float) -> str:
    """How long something takes, as far as anybody can know that before."""
    return f"{seconds:,.0f} s" if seconds < 100 else f"{seconds / 60:,.0f} minutes"


def colour_wanted() -> bool:
    """Whether stderr is a terminal whose user did not ask for plain text (https://no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


@cache
def _logger() -> Logger:
    from loguru import logger  # slow import

    logger.remove()
    # Asked for by name: loguru would colour the log of some CI services unasked.
    logger.add(_stderr, format="<level>{level: <7}</level> {message}", colorize=colour_wanted(), diagnose=False)
    return logger


def _stderr(line: str) -> None:
    """Whatever stderr is by then: programs that embed the commands redirect it. Bars stay below what is said."""
    if (bars := sys.modules.get("tqdm")) is not None:
        bars.tqdm.write(line, file=sys.stderr, end="")
    else:
        sys.stderr.write(line)
