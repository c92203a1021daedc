"""One rendered conversation as tokens, and which of its characters a token begins at."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from spec_convert.training.masking.unmaskable import Unmaskable


def words_set_apart(tokenizer: Any) -> frozenset[int]:
    """The added tokens at whose first character any text falls into two that are tokenised each for itself.

    Not those that are searched for in normalised text: a normaliser may put something before the second.
    """
    return frozenset(number for number, word in tokenizer.added_tokens_decoder.items() if not word.normalized)


class Row:
    """``ids``: the T tokens of ``text`` as chat templates are tokenised, nothing added at either end."""

    def __init__(self, tokenizer: Any, text: str, apart: frozenset[int]) -> None:
        encoded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False
        )  # fmt: skip
        self.text = text
        self.ids: list[int] = encoded["input_ids"]
        self._tokenizer = tokenizer
        self._cuts = [(0, 0)]  # characters and tokens before places where the text may be cut without harm
        starts = [start for start, _ in encoded["offset_mapping"]] if tokenizer.is_fast else []  # others do not know
        self._cuts += [(start, place) for place, start in enumerate(starts) if self.ids[place] in apart]

    def tokens_before(self, end: int) -> int:
        """How many tokens the first ``end`` characters make when they stand alone, as a prompt does.

        Raises Unmaskable when they are not the first tokens of the row. Only what follows the last cut is tokenised
        again.
        """
        start, place = self._cuts[bisect_right(self._cuts, end, key=lambda cut: cut[0]) - 1]
        tail: list[int] = []
        if start < end:
            tail = self._tokenizer(self.text[start:end], add_special_tokens=False, verbose=False)["input_ids"]
        if self.ids[place : place + len(tail)] != tail:
            raise Unmaskable(
                "boundary_inside_token",
                f"the text is tokenised across the boundary after {self.text[max(0, end - 20) : end]!r}: "
                f"{self.text[end : end + 20]!r} does not begin with a token of its own",
            )
        return place + len(tail)
