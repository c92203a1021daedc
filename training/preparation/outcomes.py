"""What becomes of every row of a data set: computed in parallel, and kept in the cache of `datasets` by its content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_convert.errors import UsageError
from spec_convert.evaluation import conversation, rows
from spec_convert.narration import progress, say
from spec_convert.training import conversations, masking
from spec_convert.training.conversations.sources import Source
from spec_convert.training.conversations.table import conversations_of
from spec_convert.training.preparation import tokenising
from spec_convert.training.preparation.tokenising import Tokenise, tokenised

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]

CHUNK_ROWS = 20_000  # are tokenised at a time, and then in the cache
FEW_ROWS = 1_000  # are soon tokenised: a process for less costs more than it saves


@contextmanager
def _in_the_cache() -> Iterator[None]:
    """A cache that does not take what is computed is the user's to mend."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"the cache of `datasets` cannot be used: {error}",
            hint="make room there, or put it elsewhere: HF_DATASETS_CACHE=FOLDER",
        ) from error


@_in_the_cache()
def outcomes_of(  # noqa: PLR0913  what is asked for, and what computes it
    sources: Sequence[Source],
    tokenise: Tokenise,
    tokenizer: Any,
    *,
    max_samples: int | None,
    seed: int,
    num_proc: int | None,
) -> Dataset:
    """A row as `tokenised` has it for each row of ``sources``, shuffled with ``seed``.

    Of all rows, or of at least so many that ``max_samples`` samples are among them. Raises UsageError.
    """
    import numpy as np
    from datasets import concatenate_datasets
    from datasets.fingerprint import Hasher  # type: ignore[import-untyped]

    say(f"reading {', '.join(source.name for source in sources)}")
    read = key_of("rows", *((source.name, source.content) for source in sources))
    table = conversations_of(sources, read)
    shuffled = table.select(np.random.default_rng(seed).permutation(len(table)), keep_in_memory=True)
    # The tokenizer's hash is that of its vocabulary, its special tokens, its chat template and all else it holds.
    key = key_of("tokens", read, Hasher.hash(tokenizer), tokenise.seq_length, seed)
    step = CHUNK_ROWS if max_samples is None else min(CHUNK_ROWS, max(FEW_ROWS, max_samples))
    done: list[Dataset] = []
    samples = 0
    say(f"tokenising {len(table):,} rows")
    with progress(len(table), unit="row", aloud=True) as advance:
        for start in range(0, len(table), step):
            chunk = shuffled.select(range(start, min(start + step, len(table))))
            processes = min(num_proc or _processes(len(chunk)), len(chunk))
            done.append(tokenised(chunk, tokenise, key_of(key, start, step), num_proc=processes))
            advance(len(chunk))
            samples += list(done[-1]["outcome"]).count("")
            if max_samples is not None and samples >= max_samples:
                break
    return concatenate_datasets(done)


def _processes(count: int) -> int:
    return min(os.cpu_count() or 1, 1 + count // FEW_ROWS)


@contextmanager
def own_narration() -> Iterator[None]:
    """`datasets` draws no bars of its own meanwhile."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    drawn = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if drawn:
            enable_progress_bars()


def key_of(*parts: object) -> str:
    """One key for all of ``parts``, which must be JSON values, and for the code that computes with them."""
    text = json.dumps([*parts, *_computed_by()])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _computed_by() -> Iterator[str]:
    """The code that decides what a row becomes, which may change while the version of this package stays."""
    yield from (f"{name} {version(name)}" for name in ["spec-convert", "transformers", "tokenizers"])
    files = [Path(str(module.__file__)) for module in (conversation, rows, tokenising)]
    for package in (conversations, masking):
        files += Path(str(package.__file__)).parent.glob("*.py")
    yield from (hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files))
