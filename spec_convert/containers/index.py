"""The index of a sharded checkpoint: which file holds which tensor, checked in both directions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from spec_convert.containers.choose import is_leftover
from spec_convert.containers.refusal import few, unreadable
from spec_convert.containers.strict_json import parse_object

RULE = "index-mismatch"
HINT = "Download the whole checkpoint again; the index and its shards belong together."


def read_index(raw: bytes, *, index: str, there: Iterable[str]) -> dict[str, set[str]]:
    """The tensors that each shard must hold, by the name of the shard."""
    entries = parse_object(raw, where=index, rule=RULE, hint=HINT).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise unreadable(RULE, index, "has no weight_map", HINT)
    for tensor, shard in entries.items():
        if not isinstance(shard, str):
            raise unreadable(RULE, index, f"names no file for {tensor!a}", HINT)
    named = set(entries.values())
    for shard in named:
        _check_name(shard, index)
    missing = named - set(there)
    if missing:
        raise unreadable(RULE, index, f"names shards that do not exist: {few(missing)}", HINT)
    shards: dict[str, set[str]] = {shard: set() for shard in sorted(named)}
    for tensor, shard in entries.items():
        shards[shard].add(tensor)
    return shards


def _check_name(shard: str, index: str) -> None:
    plain = "/" not in shard and "\\" not in shard and shard not in ("", ".", "..")
    if not plain or not shard.isprintable():
        message = f"names {shard!a}, which is not a file of the same folder"
        raise unreadable(RULE, index, message, "Do not trust this checkpoint: an index never points elsewhere.")
    if is_leftover(shard):
        raise unreadable(RULE, index, f"names {shard}, a leftover of training, as a shard", HINT)


def check_shard(shard: str, *, promised: set[str], held: Mapping[str, object], index: str) -> None:
    missing = promised - held.keys()
    if missing:
        raise unreadable(RULE, shard, f"lacks tensors that {index} promises: {few(missing)}", HINT)
    extra = held.keys() - promised
    if extra:
        raise unreadable(RULE, shard, f"holds tensors that {index} does not name: {few(extra)}", HINT)
