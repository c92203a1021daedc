"""Which prepared samples are captured, and which of them make up each shard: known before the first one is read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from spec_convert.training.store.reading import Store


@dataclass(frozen=True, slots=True)
class CapturePlan:
    """``shards``: places in the prepared store. ``left_out``: how many samples were, by reason."""

    shards: tuple[tuple[int, ...], ...]
    samples: int
    tokens: int
    left_out: dict[str, int]


def plan_capture(
    prepared: Store, *, bytes_per_token: int, shard_bytes: int, max_samples: int | None, target_tokens: int | None
) -> CapturePlan:
    """Every text once, in order, up to ``max_samples`` samples or so many that ``target_tokens`` tokens are reached.

    A shard holds whole samples, about ``shard_bytes`` of states; a longer sample is a shard of its own.
    """
    lengths: Sequence[int] = prepared.lengths.tolist()
    seen: set[bytes] = set()
    shards: list[list[int]] = []
    samples = tokens = duplicates = room = 0
    for place, length in enumerate(lengths):
        if samples == max_samples or (target_tokens is not None and tokens >= target_tokens):
            break
        digest = hashlib.sha256(prepared[place].input_ids.numpy().tobytes()).digest()
        if digest in seen:
            duplicates += 1
            continue
        seen.add(digest)
        if not shards or length * bytes_per_token > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(place)
        room -= length * bytes_per_token
        samples, tokens = samples + 1, tokens + length
    return CapturePlan(tuple(map(tuple, shards)), samples, tokens, {"duplicates": duplicates})
