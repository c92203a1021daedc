"""How vLLM is told to serve a draft: the arguments that name the model, the draft and the number of drafted tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spec_convert.errors import UsageError
from spec_convert.servable import Servable

# What vLLM calls the way of drafting. An MLP draft is registered as a model of method `eagle`.
METHODS: dict[str, dict[str, Any]] = {
    "dflash": {"method": "dflash"},
    "dspark": {"method": "dspark"},
    "eagle": {"method": "eagle"},
    "eagle_mlp": {"method": "eagle"},
    "eagle3": {"method": "eagle3"},
    "peagle": {"method": "eagle3", "parallel_drafting": True},
}


def llm_arguments(drafted: Servable, *, speculative_tokens: int | None = None) -> dict[str, Any]:
    """``model`` and, where it is needed, ``speculative_config``: keywords of `vllm.LLM`, flags of `vllm serve`.

    A unified directory alone says everything when the verifier is the one that it names. Another verifier, a pinned
    revision of the draft or another number of tokens is said beside it. Raises UsageError for a draft that vLLM takes
    inside its target alone.
    """
    if (kind := drafted.config.speculators_model_type) not in METHODS:
        raise UsageError(
            f"vLLM takes drafts of type `{kind}` inside their target alone",
            hint='vllm serve TARGET --speculative-config \'{"method": "mtp", "num_speculative_tokens": N}\' takes the '
            "one that is there; `spec-convert stitch UNIFIED FOLDER` makes a target with another",
        )
    draft, revision = _where(drafted.draft)
    own_tokens = drafted.speculative_tokens
    tokens = own_tokens if speculative_tokens is None else speculative_tokens
    if drafted.own_verifier and revision is None:
        changed = {"speculative_config": {"num_speculative_tokens": tokens}} if tokens != own_tokens else {}
        return {"model": draft} | changed
    method = METHODS[kind]
    speculative = {**method, "model": draft, "num_speculative_tokens": tokens}
    if revision is not None:
        speculative["revision"] = revision
    return verifier_arguments(drafted) | {"speculative_config": speculative}


def verifier_arguments(drafted: Servable) -> dict[str, Any]:
    """The same for the verifier by itself."""
    verifier = drafted.verifier
    return {"model": verifier.name} | ({"revision": verifier.files.revision} if verifier.pinned else {})


def _where(source: str) -> tuple[str, str | None]:
    """The folder or Hub id that vLLM understands, and the branch, tag or commit that it takes apart from it."""
    path = Path(source)
    if not source.startswith("hf://") and path.exists():
        return str(path.absolute()), None
    repo, _, revision = source.removeprefix("hf://").partition("@")
    return repo, revision or None
