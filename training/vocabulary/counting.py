"""Whose tokens are counted, how many the verifier has, and where the counts come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spec_convert.errors import UsageError
from spec_convert.training.store.community_file import read_tensors
from spec_convert.training.store.manifest import TokenizerFacts
from spec_convert.training.store.opening import open_data
from spec_convert.training.tokenizer import facts_of, open_tokenizer
from spec_convert.training.vocabulary.files import read_key_file
from spec_convert.training.vocabulary.mapping import Counts, token_counts
from spec_convert.verifier import Verifier, open_verifier

GENERATION = "generation_config.json"


@dataclass(frozen=True, eq=False)
class Counted:
    """``tokenizer``: None when neither the data nor the caller says whose ids these are.

    ``end_tokens``: the ids that end the verifier's answers; None when the verifier is not at hand.
    """

    counts: Counts
    tokenizer: TokenizerFacts | None
    end_tokens: tuple[int, ...] | None

    @property
    def digest(self) -> str:
        """Of the counts, on which the vocabulary depends and on nothing else of the data."""
        return hashlib.sha256(self.counts.astype("<i8").tobytes()).hexdigest()


def count(data: Path, *, verifier: str | None, target_vocab_size: int | None) -> Counted:
    """The tokens of the answers in ``data``: a store, a folder of `data_{i}.pt`, or a `token_freq.pt`.

    Raises UsageError when what the data, the verifier and the caller say of the vocabulary differs, or nobody says it.
    """
    opened = None if data.is_file() else open_data(data)
    if opened is not None:
        tokenizer, size = opened.tokenizer, None
    else:
        tokenizer, size = _said_beside(data)
    size = tokenizer.vocab_size if tokenizer else size
    base = open_verifier(verifier) if verifier is not None else None
    if base is not None:
        facts = facts_of(open_tokenizer(base), base)
        _require_same(data, tokenizer, facts)
        _require_size(data, size, facts.vocab_size)
        tokenizer, size = facts, facts.vocab_size
    if target_vocab_size is not None:
        _require_size(data, size, target_vocab_size)
        size = target_vocab_size
    if size is None:
        raise UsageError(
            f"{data} does not say how large the verifier's vocabulary is",
            hint="name the verifier, --verifier BASE, or say it: --target-vocab-size V",
        )
    counts = token_counts(opened, size) if opened is not None else _counts_in(data, size)
    return Counted(counts, tokenizer, _end_tokens(base or _at_hand(tokenizer)))


def _said_beside(frequencies: Path) -> tuple[TokenizerFacts | None, int | None]:
    """A frequency file holds nothing but counts; ours lies beside a `vocab.json` that says whose they are."""
    known = read_key_file(frequencies.parent)
    if known is None:
        return None, None
    if hashlib.sha256(frequencies.read_bytes()).hexdigest() != known.token_freq_sha256:
        raise UsageError(
            f"{frequencies} is not the file of which vocab.json beside it speaks",
            hint="put it into a folder of its own, and say --verifier or --target-vocab-size",
        )
    return known.tokenizer, known.target_vocab_size


def _counts_in(path: Path, vocab_size: int) -> Counts:
    said = read_tensors(path)
    if not isinstance(said, dict) or not all(type(value) is int for pair in said.items() for value in pair):
        raise _no_frequencies(path, "holds no dict of token ids and how often each occurs")
    counts = np.zeros(vocab_size, np.int64)
    for token, times in said.items():
        if not 0 <= token < vocab_size:
            raise UsageError(
                f"{path} holds token {token}, and the verifier has a vocabulary of {vocab_size}",
                hint="it is another tokenizer's: name the verifier that it was made for",
            )
        if not 0 <= times < 2**62:
            raise _no_frequencies(path, f"says that token {token} occurs {times} times")
        counts[token] = times
    return counts


def _no_frequencies(path: Path, what: str) -> UsageError:
    return UsageError(f"{path} {what}", hint="give a token_freq.pt, or the folder of the data")


def _require_same(data: Path, there: TokenizerFacts | None, asked: TokenizerFacts) -> None:
    if there is not None and there.fingerprint != asked.fingerprint:
        raise UsageError(
            f"{data} holds token ids of {there.name} (tokenizer {there.fingerprint[:12]}), "
            f"not of {asked.name} ({asked.fingerprint[:12]})",
            hint="leave --verifier out: the data say whose they are",
        )


def _require_size(data: Path, there: int | None, asked: int) -> None:
    if there is not None and there != asked:
        raise UsageError(
            f"{data} was made for a vocabulary of {there}, not of {asked}",
            hint="leave --verifier and --target-vocab-size out: the data say it",
        )


def _at_hand(tokenizer: TokenizerFacts | None) -> Verifier | None:
    """The verifier that the data name, when it is a folder that is still there."""
    if tokenizer is None or not (Path(tokenizer.name) / "config.json").is_file():
        return None
    return open_verifier(tokenizer.name)


def _end_tokens(verifier: Verifier | None) -> tuple[int, ...] | None:
    """As config.json and generation_config.json name them."""
    if verifier is None:
        return None
    configs = [verifier.config, verifier.text_config, _generation_config(verifier)]
    said = [config.get("eos_token_id") for config in configs]
    each = [token for value in said for token in (value if isinstance(value, list) else [value])]
    return tuple(sorted({token for token in each if type(token) is int}))


def _generation_config(verifier: Verifier) -> Mapping[str, Any]:
    if GENERATION not in verifier.files.sizes():
        return {}
    try:
        config = json.loads(verifier.files.path(GENERATION).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(verifier, str(error)) from error
    if not isinstance(config, dict):
        raise _damaged(verifier, "it is no object")
    return config


def _damaged(verifier: Verifier, why: str) -> UsageError:
    return UsageError(f"{verifier.name}: {GENERATION} cannot be read: {why}", hint="take it from its publisher again")
