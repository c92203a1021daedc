"""Which verifier states `fc` fuses: layer ids by flag, from config.json or by default, and the two ways to count them.

"boundary": id k is the input of layer k (SafeAILab, vLLM, speculators; default 2, N//2, N-3). "output": id k is the
output of layer k, one less (SpecForge, ModelOpt; default 1, N//2-1, N-4). Unified configs hold boundary ids by
definition. Other formats only by habit, and one trainer has both: ids that look like the other habit are refused, since
nobody sees the mistake. `--aux-layer-convention` settles it; ids by flag are boundary ids.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from spec_convert.errors import Refused
from spec_convert.facts import Facts
from spec_convert.findings import Finding
from spec_convert.formats import Draft
from spec_convert.rules import found

Convention = Literal["boundary", "output", "unified", "either"]
Ids = list[int]

KEY = "eagle_aux_hidden_state_layer_ids"
TOP, NESTED = "at the top level", "in eagle_config"
COUNTED = "they may be counted as inputs of layers or as outputs, one less"


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
        return None, [_unknown(layers)]
    if layers is None:
        return None, [_need_verifier()]
    return _by_default(draft, config, convention, layers)


def _by_default(draft: Draft, config: Facts, convention: Convention, layers: int) -> tuple[Ids | None, list[Finding]]:
    usual, counted = _default(convention, layers), draft.request.aux_layer_convention or convention
    if counted == "either" and (ways := _ways_to_count(draft, usual, layers)):
        message = f"layer ids are not in the file, and the trainer's default {usual} was counted in both ways"
        return None, [found("aux-layer-ids", where=config.where, message=message, hint=ways)]
    boundary = _boundary(usual, counted)
    return _checked(draft, boundary, boundary, layers, "the convention's default")


def known_ids(draft: Draft, boundary: Ids, given: Ids, origin: str) -> tuple[Ids | None, list[Finding]]:
    """Ids that ``origin`` gives, and that leave no doubt how they count, as servers read them; or None and why not."""
    verifier = draft.request.verifier
    return _checked(draft, boundary, given, verifier.num_hidden_layers if verifier else None, origin)


def _default(convention: Convention, layers: int) -> Ids:
    counts_outputs = convention in ("output", "either")
    return [1, layers // 2 - 1, layers - 4] if counts_outputs else [2, layers // 2, layers - 3]


def _boundary(ids: Ids, convention: Convention) -> Ids:
    return _next(ids) if convention == "output" else ids


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
    ids, said = next(iter(places.values())), draft.request.aux_layer_convention
    shown = " and ".join(f"{given} {place}" for place, given in places.items())
    if any(given != ids for given in places.values()):
        readings = (reading for given in places.values() for reading in (given, _next(given)))
        flags = sorted({_by_hand(reading) for reading in readings if not _problem(draft, reading, layers)})
        message, hint = f"layer ids {shown} differ; {COUNTED}", " or ".join(flags)
        return None, [found("aux-layer-ids", where=config.where, message=message, hint=hint)]
    counted = said or convention
    doubt = None if said else _doubt(ids, convention, layers, at_the_top=TOP in places)
    if doubt and (ways := _ways_to_count(draft, ids, layers)):
        message = f"layer ids {shown} {doubt}; {COUNTED}"
        return None, [found("aux-layer-ids", where=config.where, message=message, hint=ways)]
    known, findings = _checked(draft, _boundary(ids, counted), ids, layers, config.where)
    if known and counted == "unified" and layers is not None and ids == _default("output", layers):
        findings.append(_suspicious(ids, config.where))
    return known, findings


def _next(ids: Ids) -> Ids:
    """The boundary ids of layers that are counted by their outputs."""
    return [i + 1 for i in ids]


def _doubt(ids: Ids, convention: Convention, layers: int | None, *, at_the_top: bool) -> str | None:
    """What makes it doubtful how the ids were counted."""
    if convention == "unified":
        return None
    if convention == "either":
        return "are those of a trainer that counted in both ways"
    if convention == "output" and at_the_top:
        return "stand where servers read inputs and this dialect's trainers write nothing"
    if layers is None:
        return None
    if convention == "output" and max(ids) == layers:
        return f"cannot all count outputs, of which the last is {layers - 1}"
    other: Convention = "boundary" if convention == "output" else "output"
    return "are the default of trainers that count the other way" if ids == _default(other, layers) else None


def _ways_to_count(draft: Draft, ids: Ids, layers: int | None) -> str:
    """The flags that settle how these ids are counted; "" when they cannot be meant in either way."""
    readings: dict[Convention, Ids] = {"boundary": ids, "output": _next(ids)}
    return " or ".join(
        f"`--aux-layer-convention {counted}` ({_by_hand(reading)})"
        for counted, reading in readings.items()
        if not _problem(draft, reading, layers)
    )


def _by_hand(ids: Ids) -> str:
    return f"`--aux-layer-ids {','.join(map(str, ids))}`"


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
        hint=f"if they come from such a config, give `--aux-layer-convention output` ({_by_hand(_next(ids))})",
    )  # fmt: skip


def _unknown(layers: int | None) -> Finding:
    here = f": here {_by_hand([3, layers // 2 + 1, layers - 2])}" if layers else ""
    return found(
        "aux-layer-ids-unknown", where="config.json",
        message="has no layer ids, and drafts whose residual is the normed state were trained with other ones",
        hint=f"`--aux-layer-ids`; speculators' research/eagle3 trained with 3, N//2+1, N-2 for N verifier layers{here}",
    )  # fmt: skip


def _need_verifier() -> Finding:
    return found(
        "aux-layer-ids-need-verifier", where="config.json",
        message="has no layer ids: their default depends on how many layers the verifier has",
        hint="name it with `--verifier`",
    )  # fmt: skip
