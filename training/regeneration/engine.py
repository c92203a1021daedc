"""What the regeneration asks of an engine: a server, several of them, or transformers in this process."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from typing import Protocol

from spec_convert.training.regeneration.conversing import Asked, Outcome


class AnsweringEngine(Protocol):
    """Answers every turn of every conversation, in the context of its own answers to the earlier ones."""

    def outcomes(self, asked: Sequence[Asked], done: Collection[int]) -> Generator[Outcome, None, None]:
        """Of all of ``asked`` but those whose places are in ``done``, in any order.

        What it answers must not depend on ``done``: a run that is killed and goes on must end with the same rows.
        Raises UsageError when it cannot go on.
        """
        ...
