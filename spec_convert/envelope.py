"""What every unified config holds whatever its type, and whether draft and verifier fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from spec_convert.containers.refusal import few
from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Draft
from spec_convert.rules import found
from spec_convert.tensor import FLOATS

DTYPE_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
PROPOSED_TOKENS = 3
VOCABULARY_MAPS = ("d2t", "t2d")  # whole numbers and marks, checked by value where they are read


def envelope(  # noqa: PLR0913  the facts of the envelope, each by name
    draft: Draft,
    facts: Facts,
    *,
    model_type: str,
    architecture: str,
    width: int,
    proposed: int = PROPOSED_TOKENS,
    besides: Collection[str] = VOCABULARY_MAPS,
) -> tuple[dict[str, Any], list[Finding]]:
    """The fields of `unified.Envelope`, and what there is to say. The sizes must have a ``vocabulary``.

    ``width``: of the verifier's states. ``proposed``: how many tokens, unless the user says, or a directory that is
    unified already. ``besides``: unified tensors that are no weights and may be whole numbers.
    """
    dtype = dtype_of(draft, besides)
    findings = [*_dtype_finding(facts, dtype), *_mixed_dtypes(draft, besides), *verifier_findings(draft, width)]
    verifier, asked, said = draft.request.verifier, draft.request.speculative_tokens, _said_tokens(draft)
    method = {
        "proposal_type": "greedy",
        "speculative_tokens": next((tokens for tokens in (asked, said) if tokens is not None), proposed),
        "verifier_accept_k": 1,
        "accept_tolerance": 0.0,
    }
    config = {
        "architectures": [architecture],
        "speculators_model_type": model_type,
        "speculators_version": "0.9.0",
        "speculators_config": {
            "algorithm": model_type,
            "default_proposal_method": "greedy",
            "proposal_methods": [method],
            "verifier": {
                "name_or_path": verifier.name if verifier else "",
                "architectures": verifier.architectures if verifier else [],
            },
        },
        "tie_word_embeddings": False,
        "torch_dtype": DTYPE_NAMES[dtype],
    }
    return config, findings


def _said_tokens(draft: Draft) -> Any:
    """How many tokens a unified directory proposes already. Whether that is a number is its model's word."""
    own = draft.checkpoint.get("speculators_config")
    methods = own.get("proposal_methods") if isinstance(own, dict) else None
    first = methods[0] if isinstance(methods, list) and methods else None
    return first.get("speculative_tokens") if isinstance(first, dict) else None


def dtype_of(draft: Draft, besides: Collection[str]) -> str:
    """The dtype that most of the draft's numbers have, as the file declares it (config.json is known to lie).

    Raises Refused when a weight, any tensor ``besides`` these, is no float: quantised drafts have no unified form.
    """
    weights = {name: header for name, header in draft.mapped.targets.items() if name not in besides}
    quantised = {name: header.dtype for name, header in weights.items() if header.dtype not in FLOATS}
    if quantised:
        raise Refused(
            [found("wrong-dtype", where=name, message=f"is {dtype}, no float") for name, dtype in quantised.items()]
        )
    sizes: dict[str, int] = {}
    for header in weights.values():
        sizes[header.dtype] = sizes.get(header.dtype, 0) + header.nbytes
    return draft.request.dtype or max(sorted(sizes), key=sizes.__getitem__)


def _dtype_finding(facts: Facts, dtype: str) -> list[Finding]:
    said = facts.get("torch_dtype") or facts.get("dtype")
    if said is None or said == DTYPE_NAMES[dtype]:
        return []
    message = f"says {said}, the tensors are {DTYPE_NAMES[dtype]}: the tensors count"
    return [found("dtype-differs", where=facts.where, message=message)]


def _mixed_dtypes(draft: Draft, besides: Collection[str]) -> list[Finding]:
    """A note on the dtypes that the fewest weights have, unless all are cast to one."""
    groups: dict[str, list[str]] = {}
    for name, header in sorted(draft.mapped.targets.items()):
        if name not in besides:
            groups.setdefault(DTYPE_NAMES[header.dtype], []).append(name)
    if len(groups) < 2 or draft.request.dtype is not None:
        return []
    most = max(groups, key=lambda dtype: len(groups[dtype]))
    rare = {dtype: names for dtype, names in groups.items() if dtype != most}
    told = "; ".join(f"{dtype}: {few(names)}" for dtype, names in rare.items())
    message = f"most weights are {most}, but {told}"
    return [found("mixed-dtypes", where=next(iter(rare.values()))[0], message=message)]


def verifier_findings(draft: Draft, width: int) -> list[Finding]:
    """Whether the verifier's vocabulary and the width of its states are the ones that the draft was made for."""
    verifier = draft.request.verifier
    if verifier is None:
        return []
    pairs: Mapping[str, tuple[int, int]] = {
        "vocab_size": (verifier.vocab_size, draft.mapped.size("vocabulary")),
        "hidden_size": (verifier.hidden_size, width),
    }
    return [
        found(
            "verifier-mismatch", where=verifier.name, message=f"its {name} is {theirs}, the draft was made for {ours}",
            hint="name the model that this draft was trained for with `--verifier`",
        )
        for name, (theirs, ours) in pairs.items()
        if theirs != ours
    ]  # fmt: skip
