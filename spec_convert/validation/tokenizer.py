"""Whether the verifier's tokenizer fits its vocabulary: the ids that its files give out, against `vocab_size`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from spec_convert.errors import Unreadable
from spec_convert.findings import Finding
from spec_convert.rules import found
from spec_convert.verifier import Verifier

WHOLE, WORDS = "tokenizer.json", "vocab.json"
ADDED, CONFIG = "added_tokens.json", "tokenizer_config.json"
MAX_BYTES = 100_000_000  # of a file: the largest tokenizers have a third of it
DIGITS = 9  # of an id: Python refuses to read numbers of thousands of them
_HINT = "take the tokenizer from the verifier's own repository again"


def tokenizer_findings(verifier: Verifier) -> Iterator[Finding]:
    """Ids without a row in the embedding. Fewer ids than rows are usual: vocabularies are padded.

    A verifier without tokenizer files is judged without. Raises Unreadable when they cannot be read.
    """
    trained, added = _ids(verifier)
    size = verifier.vocab_size
    highest = max((number for number in trained if number not in added), default=-1)
    if highest >= size:
        message = f"its tokenizer numbers words up to {highest}, and its config.json counts {size} tokens"
        yield found("tokenizer-too-large", where=verifier.name, message=message, hint=_HINT)
    elif beyond := sorted(number for number in added if number >= size):
        one = f"{added[beyond[0]]!r} has the id {beyond[0]}"
        others = f" (and {len(beyond) - 1} more)" if len(beyond) > 1 else ""
        message = f"the added token {one}{others}, and its config.json counts {size} tokens"
        yield found("added-tokens-too-large", where=verifier.name, message=message)


def _ids(verifier: Verifier) -> tuple[Collection[int], dict[int, str]]:
    """The ids of the words that the tokenizer was trained with, and those of tokens added later, with their text."""
    whole = _read(verifier, WHOLE)
    added = {
        token["id"]: str(token.get("content"))
        for token in _part(whole, "added_tokens", list)
        if isinstance(token, dict) and isinstance(token.get("id"), int)
    }
    added |= {number: word for word, number in _read(verifier, ADDED).items() if isinstance(number, int)}
    for text, token in _part(_read(verifier, CONFIG), "added_tokens_decoder", dict).items():
        if text.isascii() and text.isdecimal() and len(text) <= DIGITS:
            added[int(text)] = str(token.get("content") if isinstance(token, dict) else token)
    words = _part(whole, "model", dict).get("vocab") if whole else _read(verifier, WORDS)
    if isinstance(words, list):  # Unigram: words with their scores, numbered by their place
        return range(len(words)), added
    if not isinstance(words, dict) or not all(isinstance(number, int) for number in words.values()):
        raise _unusable(verifier, WHOLE if whole else WORDS, "holds no table of words and their ids")
    return words.values(), added


def _part(whole: dict[str, Any], key: str, kind: type) -> Any:
    """What a file may leave out, or hold in a form that says nothing here."""
    value = whole.get(key)
    return value if isinstance(value, kind) else kind()


def _read(verifier: Verifier, name: str) -> dict[str, Any]:
    """One file of the tokenizer, empty when there is none. Raises Unreadable when it is no JSON object."""
    size = verifier.files.sizes().get(name)
    if size is None:
        return {}
    if size > MAX_BYTES:
        raise _unusable(verifier, name, f"has {size} bytes; no such file needs more than {MAX_BYTES}")
    try:
        value = json.loads(verifier.files.path(name).read_bytes())  # a remote file in one piece: it is read whole
    except (ValueError, RecursionError) as damage:
        raise _unusable(verifier, name, f"is not JSON: {damage}") from damage
    if not isinstance(value, dict):
        raise _unusable(verifier, name, "holds no JSON object")
    return value


def _unusable(verifier: Verifier, name: str, message: str) -> Unreadable:
    return Unreadable(found("verifier-unusable", where=f"{verifier.name}: {name}", message=message, hint=_HINT))
