"""What `evaluate --json` printed, read back: the inverse of `Measured.to_json`, and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from spec_convert.evaluation.measured import SCHEMA_VERSION, Difference, Engine, Measured, Speed
from spec_convert.reports.escape import finite


def read_measured(document: Mapping[str, Any]) -> Measured:
    """Raises ValueError, which says why, for a document that is not exactly what the measurement would print."""
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ValueError(f"its schema_version is {version!r}; this spec-convert reads {SCHEMA_VERSION}")
    try:
        measured = _measured(document)
        again = finite(measured.to_json())
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as reason:
        raise ValueError(f"not what `evaluate --json` prints: {type(reason).__name__}: {reason}") from reason
    differing = sorted(key for key in {*again, *document} if again.get(key) != document.get(key))
    if differing:
        raise ValueError(f"its {differing[0]} does not follow from what was counted")
    return measured


def _measured(document: Mapping[str, Any]) -> Measured:
    """Of the counts alone: what is derived from them is compared afterwards."""
    alpha, differences = document["alpha"], document["differences"]
    measured = Measured(
        engine=document["engine"],
        draft=document["draft"],
        verifier=document["verifier"],
        speculative_tokens=document["speculative_tokens"],
        temperature=_number(document["temperature"]),
        prompts=document["prompts"],
        answers=document["answers"],
        drafts=document["drafts"],
        accepted=tuple(document["accepted"]),
        alpha=None if alpha is None else tuple(None if share is None else _number(share) for share in alpha),
        with_draft=_required_speed(document),
        verifier_alone=_speed(document, "verifier_alone"),
        differences=None if differences is None else tuple(map(_difference, differences)),
        versions=document["versions"],
    )
    _require_types(measured)
    return measured


def _required_speed(document: Mapping[str, Any]) -> Speed:
    speed = _speed(document, "with_draft")
    if speed is None:
        raise ValueError("nothing was generated with the draft")
    return speed


def _speed(document: Mapping[str, Any], run: str) -> Speed | None:
    tokens, seconds = document["tokens"][run], document["seconds"][run]
    if tokens is None:
        return None
    speed = Speed(tokens=_count(tokens), seconds=_number(seconds))
    if speed.seconds < 0:
        raise ValueError(f"{seconds!r} is no time")
    return speed


def _difference(found: Mapping[str, Any]) -> Difference:
    logits = found["logits"]
    if logits is not None:
        drafted, own = map(_number, logits)
        logits = drafted, own
    return Difference(
        answer=_count(found["answer"]), position=_count(found["position"]), with_draft=_token(found["with_draft"]),
        verifier=_token(found["verifier"]), logits=logits, tie=_whether(found["tie"]),
    )  # fmt: skip


def _require_types(measured: Measured) -> None:
    """What every reader relies on. Raises ValueError."""
    texts = (measured.draft, measured.verifier, *measured.versions, *measured.versions.values())
    if measured.engine not in get_args(Engine) or not all(isinstance(text, str) for text in texts):
        raise ValueError("the engine, a name or a version is not one")
    for count in (measured.speculative_tokens, measured.prompts, measured.answers):
        _count(count)
    reached = [_count(count) for count in (measured.drafts, *measured.accepted)]
    if reached != sorted(reached, reverse=True):
        raise ValueError("more drafts were accepted further than less far")
    positions = {len(measured.accepted), measured.speculative_tokens, len(measured.alpha or measured.accepted)}
    if len(positions) != 1:
        raise ValueError("it has more or fewer positions than speculative_tokens")


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!r} is no count")
    return value


def _token(value: Any) -> int | None:
    return None if value is None else _count(value)


def _whether(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _number(value: Any) -> float:
    """JSON has no NaN and no infinities, which are printed as text."""
    if type(value) is str and value in ("nan", "inf", "-inf"):
        return float(value)
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} is no number")
    return float(value)
