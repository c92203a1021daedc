"""Which prepared samples are captured, and which of them make up each shard: known before the first one is read."""

from __future__ import annotations

from dataclasses import dataclass

from spec_convert.training.capture.identity import text_digest
from spec_convert.training.store.reading import Store


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """``shards``: places in the prepared store, and how many ``shard_tokens`` each holds.

    ``left_out``: how many samples were, by reason.
    """

    shards: tuple[tuple[int, ...], ...]
    shard_tokens: tuple[int, ...]
    left_out: dict[str, int]

    @property
    def samples(self) -> int:
        return sum(map(len, self.shards))

    @property
    def tokens(self) -> int:
        return sum(self.shard_tokens)


def plan_capture(
    prepared: Store, *, bytes_per_token: int, shard_bytes: int, max_samples: int | None, target_tokens: int | None
) -> CapturePlan:
    """Every text once, in order, up to ``max_samples`` samples or so many that ``target_tokens`` tokens are reached.

    A shard holds whole samples, about ``shard_bytes`` of states; a longer sample is a shard of its own.
    """
    seen: set[bytes] = set()
    shards: list[list[int]] = []
    shard_tokens: list[int] = []
    duplicates = tokens = 0
    for place, text in enumerate(prepared.texts()):
        if len(seen) == max_samples or (target_tokens is not None and tokens >= target_tokens):
            break
        if (digest := text_digest(text)) in seen:
            duplicates += 1
            continue
        seen.add(digest)
        if not shards or (shard_tokens[-1] + len(text)) * bytes_per_token > shard_bytes:
            shards.append([])
            shard_tokens.append(0)
        shards[-1].append(place)
        shard_tokens[-1] += len(text)
        tokens += len(text)
    return CapturePlan(tuple(map(tuple, shards)), tuple(shard_tokens), {"duplicates": duplicates})
