"""Which verifier states `fc` fuses: layer ids by flag, from config.json or by default, and the two ways to count them.

"boundary": id k is the input of layer k (SafeAILab, vLLM, speculators; default 2, N//2, N-3). "output": id k is the
output of layer k, one less (SpecForge, ModelOpt; default 1, N//2-1, N-4). Unified configs hold boundary ids by
definition. Other formats only by habit: ids that look like the other habit are refused, since nobody sees the mistake.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Draft
from spec_convert.rules import found

Convention = Literal["boundary", "output", "unified"]
Ids = list[int]

KEY = "eagle_aux_hidden_state_layer_ids"
TOP, NESTED = "at the top level", "in eagle_config"


def aux_layer_ids(
    draft: Draft, config: Facts, convention: Convention, *, has_default: bool = True
) -> tuple[Ids | None, list[Finding]]:
    """Boundary ids, or None and why not. ``has_default``: whether the trainer is known to have used the usual ones."""
    verifier, flag = draft.request.verifier, draft.request.aux_layer_ids
    layers = verifier.num_hidden_layers if verifier else None
    if flag is not None:
        return _checked(draft, list(flag), list(flag), layers, "--aux-layer-ids")
    if places := _in_config(config):
        return _from_config(draft, config, places, convention, layers)
    if not has_default:
        return None, [_unknown()]
    if layers is None:
        return None, [_need_verifier()]
    default = _default("boundary", layers)
    return _checked(draft, default, default, layers, "the convention's default")


def known_ids(draft: Draft, boundary: Ids, given: Ids, origin: str) -> tuple[Ids | None, list[Finding]]:
    """Ids that ``origin`` gives, and that leave no doubt how they count, as servers read them; or None and why not."""
    verifier = draft.request.verifier
    return _checked(draft, boundary, given, verifier.num_hidden_layers if verifier else None, origin)


def _default(convention: Convention, layers: int) -> Ids:
    return [1, layers // 2 - 1, layers - 4] if convention == "output" else [2, layers // 2, layers - 3]


def _in_config(config: Facts) -> dict[str, Ids]:
    """The lists that config.json gives, by the place where they stand. Empty ones are absent ones."""
    nested = config.get("eagle_config")
    values = {TOP: config.get(KEY), NESTED: nested.get(KEY) if isinstance(nested, dict) else None}
    places = {place: ids for place, ids in values.items() if ids}
    for ids in places.values():
        if not isinstance(ids, list) or not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            message = f"`{KEY}` is {ids!r}, no list of layers"
            raise Refused([found("config-key-invalid", where=config.where, message=message)])
    return places


def _from_config(
    draft: Draft, config: Facts, places: dict[str, Ids], convention: Convention, layers: int | None
) -> tuple[Ids | None, list[Finding]]:
    ids = next(iter(places.values()))
    readings = [r for given in places.values() for r in (given, _next(given)) if not _problem(draft, r, layers)]
    doubt = _doubt(places, convention, layers)
    if doubt and readings:
        message = f"layer ids {doubt}; they may be counted as inputs of layers or as outputs, one less"
        flags = sorted({f"`--aux-layer-ids {','.join(map(str, reading))}`" for reading in readings})
        return None, [found("aux-layer-ids", where=config.where, message=message, hint=" or ".join(flags))]
    boundary = _next(ids) if convention == "output" else ids
    known, findings = _checked(draft, boundary, ids, layers, config.where)
    if known and convention == "unified" and layers is not None and ids == _default("output", layers):
        findings.append(_suspicious(ids, config.where))
    return known, findings


def _next(ids: Ids) -> Ids:
    """The boundary ids of layers that are counted by their outputs."""
    return [i + 1 for i in ids]


def _doubt(places: dict[str, Ids], convention: Convention, layers: int | None) -> str | None:
    """What makes it doubtful how the ids were counted, with the ids as config.json has them."""
    ids = next(iter(places.values()))
    shown = " and ".join(f"{given} {place}" for place, given in places.items())
    if any(given != ids for given in places.values()):
        return f"{shown} differ"
    if convention == "unified":
        return None
    if convention == "output" and TOP in places:
        return f"{shown}, where servers read inputs and this dialect's trainers write nothing"
    if layers is None:
        return None
    if convention == "output" and max(ids) == layers:
        return f"{ids} cannot all count outputs, of which the last is {layers - 1}"
    other: Convention = "boundary" if convention == "output" else "output"
    return f"{ids} are the default of trainers that count the other way" if ids == _default(other, layers) else None


def _checked(
    draft: Draft, boundary: Ids, given: Ids, layers: int | None, origin: str
) -> tuple[Ids | None, list[Finding]]:
    """The boundary ids when servers read them as they stand; the message shows them as they were ``given``."""
    problem = _problem(draft, boundary, layers)
    if problem is None:
        return boundary, _about_the_last(boundary, layers, origin)
    hint = "`--aux-layer-ids A,B,C` gives the boundary ids: k for the state that enters layer k"
    return None, [found("aux-layer-ids", where=origin, message=f"layer ids {given}: {problem}", hint=hint)]


def _problem(draft: Draft, ids: Ids, layers: int | None) -> str | None:
    count = draft.mapped.size("aux")
    if len(ids) != count:
        return f"fc fuses {count} states"
    if any(a >= b for a, b in pairwise(ids)):
        return "not strictly increasing: servers sort them and drop repeated ones, which permutes the inputs of fc"
    if ids[0] < 0 or (layers is not None and ids[-1] > layers):
        return f"outside the verifier's {layers} layers"
    return None


def _about_the_last(ids: Ids, layers: int | None, origin: str) -> list[Finding]:
    """Trainers that take the states from transformers' list get the last one normed; every server feeds it as it is."""
    if ids[-1] != layers:
        return []
    message = f"layer id {layers} is the state behind the verifier's last layer, which servers take before its norm"
    return [found("last-layer-state", where=origin, message=message)]


def _suspicious(ids: Ids, where: str) -> Finding:
    return found(
        "aux-layer-ids-suspicious", where=where,
        message=f"layer ids {ids} are the default of trainers that count outputs, one less than the ids meant here",
        hint=f"if they were copied from such a config, give `--aux-layer-ids {','.join(map(str, _next(ids)))}`",
    )  # fmt: skip


def _unknown() -> Finding:
    return found(
        "aux-layer-ids-unknown", where="config.json",
        message="has no layer ids, and drafts whose residual is the normed state were trained with other ones",
        hint="give `--aux-layer-ids`; speculators' research/eagle3 trained with 3, N//2+1, N-2 for N verifier layers",
    )  # fmt: skip


def _need_verifier() -> Finding:
    return found(
        "aux-layer-ids-need-verifier", where="config.json",
        message="has no layer ids: their default depends on how many layers the verifier has",
        hint="name it with `--verifier`",
    )  # fmt: skip
