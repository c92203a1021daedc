"""The verifier's tokenizer, and by what two of them are told apart."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.evaluation.chat import load_tokenizer
from spec_convert.training.store.manifest import TokenizerFacts
from spec_convert.verifier import Verifier


def open_tokenizer(verifier: Verifier) -> Any:
    """The tokenizer of transformers for this verifier. Raises UsageError when there is none."""
    return load_tokenizer(verifier.name, revision=verifier.files.revision)


def facts_of(tokenizer: Any, verifier: Verifier) -> TokenizerFacts:
    """``vocab_size`` is the verifier's: its head may have more rows than the tokenizer has tokens, never fewer."""
    tokens = tokenizer.get_vocab()
    if (largest := max(tokens.values())) >= verifier.vocab_size:
        raise UsageError(
            f"the tokenizer has token {largest}, and {verifier.name} a vocabulary of {verifier.vocab_size}",
            hint="the folder holds the tokenizer of another model",
        )
    listed = json.dumps(sorted((number, token) for token, number in tokens.items()))
    digest = hashlib.sha256(listed.encode()).hexdigest()
    return TokenizerFacts(name=verifier.name, fingerprint=digest, vocab_size=verifier.vocab_size)
