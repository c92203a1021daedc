"""The rotary embedding that a config asks for: its base and its scaling, in the old keys or transformers 5's."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Request
from spec_convert.plugins.families.neutral import NEUTRAL, not_neutral
from spec_convert.rules import found

DEFAULT_THETA = 10000.0  # what every implementation uses when config.json does not say: a fact of the training
KINDS = ("rope_type", "type")


def rope(facts: Facts, request: Request) -> tuple[float, dict[str, Any] | None, list[Finding]]:
    """Base and scaling. Raises Refused when the old keys and `rope_parameters` stand side by side and disagree."""
    parts = [facts.part(key) for key in ("rope_parameters", "rope_scaling") if facts.get(key)]
    scalings = [_scaling(part) for part in parts] or [None]
    if any(scaling != scalings[0] for scaling in scalings):
        _contradiction(facts, "`rope_parameters` and `rope_scaling` scale differently")
    if request.rope_theta is not None:
        return request.rope_theta, scalings[0], []
    said = [source for source in (facts, *parts) if source.has("rope_theta")]
    bases = {source.require({"rope_theta": float})["rope_theta"] for source in said}
    if len(bases) > 1:
        _contradiction(facts, f"gives several bases as rope_theta: {', '.join(f'{base:g}' for base in sorted(bases))}")
    if bases:
        return bases.pop(), scalings[0], []
    note = found(
        "rope-theta-absent", where=facts.where,
        message=f"has no rope_theta: the draft was trained with {DEFAULT_THETA:g}",
        hint="`--rope-theta` overrides it when you know better",
    )  # fmt: skip
    return DEFAULT_THETA, scalings[0], [note]


def _contradiction(facts: Facts, message: str) -> None:
    hint = "keep in config.json what the training code read"
    raise Refused([found("config-contradicts-itself", where=facts.where, message=message, hint=hint)])


def _scaling(given: Facts) -> dict[str, Any] | None:
    """How the rotary frequencies are changed, or None. Raises Refused when it does not say in which way."""
    values = {key: value for key, value in given.values.items() if key != "rope_theta"}
    if findings := not_neutral(given):
        raise Refused(findings)
    kind = next((values[key] for key in KINDS if values.get(key) is not None), None)
    if kind == "mrope" or "mrope_section" in values:
        _three_positions(given)
    more = [key for key, value in values.items() if key not in (*KINDS, *NEUTRAL) and value is not None]
    if kind == "default" and more:
        message = f"asks for {', '.join(more)} although its kind is `default`, which has no such thing"
        raise Refused([found("not-representable", where=given.where, message=message)])
    if kind == "default" or not values:
        return None
    if not isinstance(kind, str):
        message = f"has {', '.join(values)} and no `rope_type` that says what they mean"
        raise Refused([found("config-key-invalid", where=given.where, message=message)])
    return _finite(values, given.where)


def _three_positions(given: Facts) -> NoReturn:
    message = "asks for mrope_section: each token has three positions (images, video), and drafts here have one"
    hint = "for text alone all three are equal: take the scaling out of config.json and give its base by `--rope-theta`"
    raise Refused([found("not-representable", where=given.where, message=message, hint=hint)])


def _finite(scaling: dict[str, Any], where: str) -> dict[str, Any]:
    """The same, with the factor as a float: vLLM takes a whole number for a list of factors and fails at start.

    JSON has no infinite numbers, but Python reads 1e999 as one: it would come out as something nobody else reads.
    """
    try:
        json.dumps(scaling, allow_nan=False)
        if type(scaling.get("factor")) is int:
            return scaling | {"factor": float(scaling["factor"])}
    except (ValueError, OverflowError):
        raise Refused([found("config-key-invalid", where=where, message="holds a number that is not finite")]) from None
    return scaling
