"""A conversation of which it cannot be known what the verifier says in it."""

from __future__ import annotations


class Unmaskable(Exception):
    """``reason``: a short key that conversations are counted under. As text it says the same in words."""

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(reason, words)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])
