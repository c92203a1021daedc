"""The files of a draft vocabulary: `d2t.npy`, `t2d.npy`, `token_freq.pt`, and `vocab.json`, which says whose."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from spec_convert.errors import UsageError
from spec_convert.training.store.manifest import TokenizerFacts
from spec_convert.training.vocabulary.mapping import Counts, Vocabulary

KEY_FILE, D2T, T2D, FREQUENCIES = "vocab.json", "d2t.npy", "t2d.npy", "token_freq.pt"
OURS = frozenset({KEY_FILE, D2T, T2D, FREQUENCIES})


class Coverage(BaseModel):
    """``share`` of the answers' tokens that the ``size`` most frequent ones make up."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    share: float


class KeyFile(BaseModel):
    """`vocab.json`. ``key``: the same for the same counts, tokenizer and sizes, on which all files depend.

    ``answer_tokens`` and ``distinct_tokens`` were counted; ``filled`` of the draft's tokens were not. ``end_tokens``
    are the verifier's, and those of them that the draft has; None when the verifier was not at hand.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    tokenizer: TokenizerFacts | None
    target_vocab_size: int
    draft_vocab_size: int
    answer_tokens: int
    distinct_tokens: int
    filled: int
    coverage: tuple[Coverage, ...]
    end_tokens: tuple[int, ...] | None
    end_tokens_kept: tuple[int, ...] | None
    token_freq_sha256: str


def key_of(digest: str, tokenizer: TokenizerFacts | None, target: int, draft: int) -> str:
    """``digest``: of the counts."""
    fingerprint = tokenizer.fingerprint if tokenizer else None
    return hashlib.sha256(json.dumps([digest, fingerprint, target, draft]).encode()).hexdigest()


def read_key_file(folder: Path) -> KeyFile | None:
    """None when there is none. Raises UsageError when it cannot be understood."""
    path = folder / KEY_FILE
    try:
        return KeyFile.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg']}"
        raise UsageError(f"{path} is not what `vocab` writes: {what}", hint="remove it, or the folder") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint="check its permissions") from error


def is_there(output: Path, key: str, vocabulary: Vocabulary, *, force: bool) -> bool:
    """Whether ``output`` holds this vocabulary already.

    Raises UsageError when it holds anything else; with ``force`` only when that is not for us to replace.
    """
    if not output.exists():
        return False
    if not output.is_dir() or (foreign := sorted(set(os.listdir(output)) - OURS)):
        what = f"holds {foreign[0]}" if output.is_dir() else "is not a folder"
        raise UsageError(f"OUTPUT {output} {what}", hint="give a folder of its own")
    if force or not os.listdir(output):
        return False
    known = read_key_file(output)
    if known is None or known.key != key:
        of = f"of {known.draft_vocab_size} tokens, counted otherwise" if known else "without a vocab.json"
        raise UsageError(f"OUTPUT {output} holds another vocabulary, {of}", hint="`--force` replaces it")
    if not _same(output, vocabulary):
        raise UsageError(f"the files in {output} are not as they were written", hint="`--force` writes them again")
    return True


def write_files(output: Path, counts: Counts, vocabulary: Vocabulary, facts: Mapping[str, object]) -> KeyFile:
    """All four; ``facts`` are the fields of `vocab.json` but for the digest. Raises UsageError."""
    output = output.resolve()
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        try:
            written = _write(partial, counts, vocabulary, facts)
            _put(partial, output)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as reason:
        raise UsageError(f"cannot write {output}: {reason.strerror}", hint="give another OUTPUT folder") from reason
    return written


def _write(folder: Path, counts: Counts, vocabulary: Vocabulary, facts: Mapping[str, object]) -> KeyFile:
    import torch

    np.save(folder / D2T, vocabulary.d2t)
    np.save(folder / T2D, vocabulary.t2d)
    seen = np.flatnonzero(counts)
    torch.save(dict(zip(seen.tolist(), counts[seen].tolist(), strict=True)), folder / FREQUENCIES)
    digest = hashlib.sha256((folder / FREQUENCIES).read_bytes()).hexdigest()
    written = KeyFile.model_validate({**facts, "token_freq_sha256": digest})
    (folder / KEY_FILE).write_text(written.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return written


def _put(partial: Path, output: Path) -> None:
    """At one instant where nothing is there; else file by file, between which no `vocab.json` vouches for them.

    An empty folder is not replaced: it may be where somebody stands.
    """
    if not output.exists():
        partial.rename(output)
        return
    (output / KEY_FILE).unlink(missing_ok=True)
    for name in (D2T, T2D, FREQUENCIES, KEY_FILE):
        (partial / name).replace(output / name)


def _same(output: Path, vocabulary: Vocabulary) -> bool:
    try:
        d2t, t2d = (np.load(output / name, allow_pickle=False) for name in (D2T, T2D))
    except (OSError, ValueError):
        return False
    return np.array_equal(d2t, vocabulary.d2t) and np.array_equal(t2d, vocabulary.t2d)
