"""Whether a verifier can read the longest of the prepared samples: known before anything is started."""

from __future__ import annotations

from spec_convert.errors import UsageError
from spec_convert.training.store.reading import Store
from spec_convert.verifier import Verifier


def require_readable(prepared: Store, verifier: Verifier, *, context: int | None = None, answers: bool = False) -> None:
    """Raises UsageError when a sample has more tokens than the verifier reads, with the length to prepare them for.

    ``context``: what servers allow, where they say so. ``answers``: vLLM reads nothing to which it cannot add a token.
    """
    limits = (verifier.text_config.get("max_position_embeddings"), context)
    known = [limit for limit in limits if isinstance(limit, int)]
    lengths = prepared.lengths
    if not known or not len(lengths):
        return
    most, place = min(known) - answers, int(lengths.argmax())
    if (longest := int(lengths[place])) > most:
        why = ", since vLLM must be able to add one" if answers else ""
        raise UsageError(
            f"sample {place} of {prepared.folder} has {longest:,} tokens, and {verifier.name} reads at most {most:,}"
            f"{why}",
            hint=f"prepare the conversations with --seq-length {most}",
        )
