"""What the program says while it works: on stderr, through loguru, and only when somebody listens."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loguru import Logger


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


@cache
def _logger() -> Logger:
    from loguru import logger  # slow import

    logger.remove()
    logger.add(sys.stderr, format="<level>{level: <7}</level> {message}", diagnose=False)
    return logger
