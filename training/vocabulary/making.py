"""The verb `vocab`, as Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spec_convert.training.vocabulary.counting import count
from spec_convert.training.vocabulary.files import KeyFile, is_there, key_of, read_key_file, write_files
from spec_convert.training.vocabulary.mapping import coverage_at, draft_vocabulary


@dataclass(frozen=True)
class Made:
    """``written``: False when the same vocabulary was there already."""

    output: Path
    facts: KeyFile
    written: bool

    def to_json(self) -> dict[str, Any]:
        return {"output": str(self.output), "written": self.written, **self.facts.model_dump(mode="json")}


def make_vocabulary(  # noqa: PLR0913  the contract of the command line, flag by flag
    data: Path,
    output: Path,
    *,
    draft_vocab_size: int,
    verifier: str | None = None,
    target_vocab_size: int | None = None,
    force: bool = False,
) -> Made:
    """Count the tokens of the answers in ``data``, and write the draft vocabulary of the most frequent ones.

    Raises UsageError, and Unreadable for a verifier that cannot be read.
    """
    counted = count(data, verifier=verifier, target_vocab_size=target_vocab_size)
    counts, total = counted.counts, len(counted.counts)
    vocabulary = draft_vocabulary(counts, draft_vocab_size)
    key = key_of(counted.digest, counted.tokenizer, total, draft_vocab_size)
    if is_there(output, key, vocabulary, force=force):
        known = read_key_file(output)
        assert known is not None
        return Made(output, known, written=False)
    sizes = sorted({max(1, draft_vocab_size // 2), draft_vocab_size, min(total, 2 * draft_vocab_size)})
    ends = counted.end_tokens
    facts = {
        "key": key,
        "tokenizer": counted.tokenizer,
        "target_vocab_size": total,
        "draft_vocab_size": draft_vocab_size,
        "answer_tokens": int(counts.sum()),
        "distinct_tokens": int(np.count_nonzero(counts)),
        "filled": vocabulary.filled,
        "coverage": [{"size": size, "share": coverage_at(counts, size)} for size in sizes],
        "end_tokens": ends,
        "end_tokens_kept": None if ends is None else tuple(end for end in ends if _has(vocabulary.t2d, end)),
    }
    return Made(output, write_files(output, counts, vocabulary, facts), written=True)


def _has(t2d: np.ndarray[Any, np.dtype[np.bool_]], token: int) -> bool:
    return 0 <= token < len(t2d) and bool(t2d[token])
