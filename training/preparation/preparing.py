"""The verb `prepare`: conversations as token ids and exact loss masks, in a store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_convert.errors import UsageError
from spec_convert.training.conversations.sources import open_source
from spec_convert.training.masking.masker import Masker
from spec_convert.training.preparation.accounts import COLUMNS, Accounts, account, require_usable
from spec_convert.training.preparation.outcomes import outcomes_of, own_narration
from spec_convert.training.preparation.tokenising import Tokenise
from spec_convert.training.store.manifest import Manifest
from spec_convert.training.store.sample import Sample
from spec_convert.training.store.writing import writing
from spec_convert.training.tokenizer import facts_of, open_tokenizer
from spec_convert.verifier import open_verifier

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]

INSTALL = "pip install 'spec-convert[train]'"
SHARD_TOKENS = 64_000_000 // 5  # of 64 MB: an id has four bytes, its mask one


@dataclass(frozen=True, slots=True)
class Prepared:
    """A finished store in ``folder``, what became of the rows, and how the masks were found (see `Masker.how`)."""

    folder: Path
    verifier: str
    masks: str
    seq_length: int
    accounts: Accounts
    shards: int

    def to_json(self) -> dict[str, Any]:
        return {
            "output": str(self.folder), "verifier": self.verifier, "masks": self.masks, "shards": self.shards,
            "seq_length": self.seq_length, **self.accounts.to_json(),
        }  # fmt: skip


def prepare(  # noqa: PLR0913  the contract of the command line, flag by flag
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    verifier: str | Path,
    seq_length: int = 2048,
    max_samples: int | None = None,
    seed: int = 0,
    num_proc: int | None = None,
) -> Prepared:
    """Write the conversations of ``sources`` to the store ``output``: one sample a conversation, all answers masked in.

    ``sources`` are files, data sets on the Hub (see `read_rows`) or names of PRESETS. The rows are shuffled with
    ``seed``; the first ``max_samples`` that can be learned from are taken, or all, and cut at ``seq_length`` tokens.
    ``num_proc``: processes that tokenise; default: one for each core, if there are rows enough. A run of the same
    request goes on where another one ended. Raises UsageError or Unreadable.
    """
    if seq_length < 1 or (max_samples is not None and max_samples < 1):
        raise UsageError(f"cannot prepare {max_samples} samples of {seq_length} tokens", hint="1 or more of each")
    _require_libraries()
    opened = open_verifier(verifier)
    tokenizer = open_tokenizer(opened)
    facts, masker = facts_of(tokenizer, opened), Masker(tokenizer)
    with own_narration():
        found = [open_source(source) for source in sources]
        outcomes = outcomes_of(
            found, Tokenise(masker, seq_length), tokenizer, max_samples=max_samples, seed=seed, num_proc=num_proc
        )
        accounts = account(outcomes.select_columns(list(COLUMNS))[:], max_samples)
        require_usable(accounts)
        shards = _shards(accounts)
        draft = Manifest(
            kind="prepared", tokenizer=facts, counts=accounts.counts, planned_shards=len(shards),
            request={
                "sources": [source.content for source in found], "seq_length": seq_length, "max_samples": max_samples,
                "seed": seed, "tokenizer": facts.fingerprint, "chat_template": _template_digest(tokenizer),
            },
            made_with={name: version(name) for name in ["spec-convert", "transformers", "tokenizers"]}
            | {"masks": masker.how},
        )  # fmt: skip
        _write(Path(output), draft, outcomes, shards)
    return Prepared(Path(output), opened.name, masker.how, seq_length, accounts, len(shards))


def _require_libraries() -> None:
    for name in ("datasets", "transformers"):
        if find_spec(name) is None:
            raise UsageError(f"conversations are prepared with `{name}`, which is not installed", hint=INSTALL)


def _shards(accounts: Accounts) -> list[list[int]]:
    """The places of the samples of each shard: as many whole samples as SHARD_TOKENS hold, or one longer one."""
    shards: list[list[int]] = []
    room = 0
    for place, length in zip(accounts.kept, accounts.lengths, strict=True):
        if not shards or length > room:
            shards.append([])
            room = SHARD_TOKENS
        shards[-1].append(place)
        room -= length
    return shards


def _write(output: Path, draft: Manifest, outcomes: Dataset, shards: Sequence[Sequence[int]]) -> None:
    with writing(output, draft) as writer:
        _require_same(output, writer.manifest, draft)
        first = 0
        for number, places in enumerate(shards):
            if number not in writer.done:
                writer.write(number, _samples(outcomes, places, first))
            first += len(places)


def _require_same(output: Path, there: Manifest, now: Manifest) -> None:
    """Raises UsageError when other versions made, or would go on with, the store of the same request."""
    if there.counts != now.counts:
        difference = _difference(there.counts, now.counts)
    elif not there.finished and there.made_with != now.made_with:
        difference = _difference(there.made_with, now.made_with)
    else:
        return
    raise UsageError(
        f"{output} was begun with {difference} of the same request: other versions made it",
        hint="remove it, or give another OUTPUT folder",
    )


def _difference(there: Mapping[str, object], now: Mapping[str, object]) -> str:
    name = next(name for name in [*there, *now] if there.get(name) != now.get(name))
    return f"{name} {there.get(name, 0)} instead of {now.get(name, 0)}"


def _samples(outcomes: Dataset, places: Sequence[int], first: int) -> list[Sample]:
    import torch

    chosen = outcomes.select_columns(["input_ids", "loss_mask"]).select(places, keep_in_memory=True)
    table = chosen.with_format("arrow")[:]
    ids, masks = (table[name].combine_chunks() for name in ("input_ids", "loss_mask"))
    offsets = ids.offsets.to_numpy()
    all_ids, all_masks = (one.flatten().to_numpy(zero_copy_only=False) for one in (ids, masks))
    return [
        Sample(
            index=first + place,
            input_ids=torch.from_numpy(all_ids[start:end].astype("int64")),
            loss_mask=torch.from_numpy(all_masks[start:end].copy()),
        )
        for place, (start, end) in enumerate(pairwise(offsets - offsets[0]))
    ]


def _template_digest(tokenizer: Any) -> str:
    """Of the chat template and of the special tokens that it may name."""
    text = json.dumps([tokenizer.chat_template, tokenizer.special_tokens_map], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
