"""By what one verifier, or one set of data, is told from another without reading all of it."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Sequence
from itertools import groupby

from spec_convert.verifier import Verifier

BEGINNING = 4096  # bytes: training moves every number of a tensor, so its beginning tells it from another


def identity_of(verifier: Verifier) -> str:
    """The id and commit on the Hub; of a folder, which may be moved, a digest of the config and the weights.

    Of the weights their names, shapes and dtypes count, and the beginning of each tensor.
    """
    if verifier.files.revision is not None:
        return f"{verifier.name}@{verifier.files.revision}"
    digest = hashlib.sha256(json.dumps(verifier.config, sort_keys=True).encode())
    tensors = sorted(verifier.checkpoint.tensors.values(), key=lambda tensor: (tensor.file, tensor.start, tensor.name))
    for file, within in groupby(tensors, key=lambda tensor: tensor.file):
        with verifier.files.open(file) as stream:
            for tensor in within:
                digest.update(f"{tensor.name} {tensor.dtype} {tensor.shape}".encode())
                stream.seek(tensor.start)
                digest.update(stream.read(min(BEGINNING, tensor.nbytes)))
    return f"sha256:{digest.hexdigest()}"


def digest_of(parts: Iterable[str]) -> str:
    """Of data, given the digests of its parts in order."""
    return f"sha256:{hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()}"


def text_digest(token_ids: Sequence[int]) -> bytes:
    """The same for the same text, whoever holds it."""
    return hashlib.sha256(array("q", token_ids).tobytes()).digest()
