"""Measures a draft with transformers: our own speculative-decoding loop, one answer at a time, on any machine."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from spec_convert.errors import UsageError
from spec_convert.evaluation.chat import Chat, open_chat
from spec_convert.evaluation.measured import Measured
from spec_convert.evaluation.memory import enough_memory
from spec_convert.evaluation.prompt import Prompt
from spec_convert.evaluation.settings import require_usable
from spec_convert.narration import progress, say
from spec_convert.servable import Servable

if TYPE_CHECKING:
    from spec_convert.evaluation.answering import Answering
    from spec_convert.evaluation.drafting import DraftModel
    from spec_convert.evaluation.verifier_model import VerifierModel

DTYPES = ("float32", "float16", "bfloat16")
PACKAGES = ["spec-convert", "torch", "transformers"]  # whose versions a result names


def measure(  # noqa: PLR0913  (each is a choice of the user's)
    drafted: Servable,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    speculative_tokens: int | None,
    temperature: float,
    seed: int,
    alone: bool,
    dtype: str = "float32",
    device: str | None = None,
) -> Measured:
    """Answer ``prompts`` with the draft's help, and count.

    ``speculative_tokens`` None: as many as the draft's config says. ``alone``: the verifier also answers by itself, for
    its speed and, with greedy decoding, to compare the texts. ``device`` None: the GPU when there is one. alpha is
    taken at the temperature of sampling, and at 1 when decoding is greedy. Raises UsageError.
    """
    tokens = drafted.speculative_tokens if speculative_tokens is None else speculative_tokens
    require_usable(prompts, max_tokens=max_tokens, speculative_tokens=tokens, temperature=temperature)
    if dtype not in DTYPES:
        raise UsageError(f"there is no dtype {dtype!r} to compute in", hint=f"one of {', '.join(DTYPES)}")
    from spec_convert.evaluation.answering import Answering, Decoding

    decoding = Decoding(max_tokens=max_tokens, temperature=temperature, seed=seed)
    with enough_memory("half as much is needed with --dtype bfloat16, or try vLLM"):
        answering = Answering(*_load(drafted, tokens, dtype=dtype, device=device), decoding, alone=alone)
        _answer_all(answering, prompts)
    return Measured(
        engine="transformers",
        draft=drafted.draft,
        verifier=drafted.verifier.name,
        speculative_tokens=tokens,
        temperature=temperature,
        prompts=len(prompts),
        answers=answering.answers,
        drafts=answering.tally.drafts,
        accepted=tuple(answering.tally.accepted),
        alpha=answering.tally.alpha,
        with_draft=answering.with_draft.speed,
        verifier_alone=answering.alone.speed if answering.alone else None,
        differences=None if answering.differences is None else tuple(answering.differences),
        versions={name: version(name) for name in PACKAGES},
    )


def _answer_all(answering: Answering, prompts: Sequence[Prompt]) -> None:
    answering.warm_up(prompts[0])
    say(f"Answering {len(prompts)} prompts")
    with progress(len(prompts), unit="prompt") as done:
        for number, prompt in enumerate(prompts, 1):
            try:
                answering.converse(prompt)
            except UsageError as problem:
                raise UsageError(f"prompt {number}: {problem.message}", hint=problem.hint) from problem
            done(1)


def _load(drafted: Servable, tokens: int, *, dtype: str, device: str | None) -> tuple[Chat, VerifierModel, DraftModel]:
    import torch

    from spec_convert.evaluation.drafting import DraftModel
    from spec_convert.evaluation.verifier_model import load_verifier
    from spec_convert.models.load import load_draft

    name, revision = drafted.verifier.name, drafted.verifier.files.revision
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    chat = open_chat(name, revision=revision)
    verifier = load_verifier(name, drafted.config, revision=revision, dtype=dtype, device=place)
    base = f"{name}@{revision}" if revision else name
    draft = load_draft(drafted.draft, verifier=base, dtype=verifier.model.dtype).to(verifier.device)
    return chat, verifier, DraftModel(draft, tokens=tokens, device=verifier.device)
