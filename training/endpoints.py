"""Several servers of one model behind OpenAI's protocol, as one: concurrent, patient, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Body = Mapping[str, Any]


class Endpoints:
    """Requests go to the server with the fewest under way; one that does not answer is left alone for a while."""

    def __init__(self, urls: Sequence[str], *, concurrency: int, patience: float, api_key: str | None = None) -> None:
        """``urls``: with or without `/v1`. ``concurrency``: requests under way at once, over all servers.

        ``patience``: seconds for which a request is tried again, with growing pauses, while no server takes it.
        """
        raise NotImplementedError

    def model(self) -> str:
        """The model that all of them serve. Raises UsageError when they do not answer, or serve different ones."""
        raise NotImplementedError

    def answers(self, path: str, bodies: Iterable[Body]) -> Iterator[dict[str, Any]]:
        """POST each body to ``path`` (`/v1/completions`), and yield the answers in the order of the bodies.

        Reads ahead no further than the concurrency. What a server refuses for good (4xx but 408, 409, 425, 429) and
        what no server answers in time is a UsageError that names the server and its words.
        """
        raise NotImplementedError
