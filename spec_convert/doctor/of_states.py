"""What may be wrong with what the draft is fed: other layers than it learned from, in another order, normed or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise

from spec_convert.doctor.counting import ASPECT, ONE_UP
from spec_convert.doctor.hypothesis import Base, Fix, Hypothesis
from spec_convert.doctor.parts import Kind, Parts
from spec_convert.unified import Eagle3Config, EagleConfig

Ids = tuple[int, ...]


def other_ids(config: Kind, layers: int) -> dict[str, Ids]:
    """Layer ids that may be meant instead, by the code of the hypothesis; each list once."""
    if not isinstance(config, Eagle3Config):
        return {}
    ids = tuple(config.eagle_aux_hidden_state_layer_ids)
    ways = {ONE_UP: tuple(i + 1 for i in ids), "aux-ids-one-down": tuple(i - 1 for i in ids)}
    if len(ids) == 3:
        ways["aux-ids-usual"] = (2, layers // 2, layers - 3)
    fitting = {
        code: found
        for code, found in ways.items()
        if found != ids and found[0] >= 0 and found[-1] <= layers and all(a < b for a, b in pairwise(found))
    }
    first_to_say = {found: code for code, found in reversed(fitting.items())}
    return {code: found for code, found in fitting.items() if first_to_say[found] == code}


def of_states(parts: Parts, base: Base) -> Iterator[Hypothesis]:
    match parts.config:
        case Eagle3Config():
            yield from _of_layer_ids(parts.config, base)
        case EagleConfig():
            yield from _of_the_last_state(base)


def _of_layer_ids(config: Eagle3Config, base: Base) -> Iterator[Hypothesis]:
    ids = tuple(config.eagle_aux_hidden_state_layer_ids)
    shown = _listed(ids)
    says = {
        ONE_UP: f"the layer ids {shown} count outputs of layers, and are read as inputs",
        "aux-ids-one-down": f"the layer ids {shown} are one too high: inputs of layers were taken for outputs",
        "aux-ids-usual": f"the layer ids {shown} are not those that it learned from",
    }
    for code, meant in other_ids(config, base.layers).items():
        yield Hypothesis(
            code=code, aspect=ASPECT, says=f"{says[code]}; {_listed(meant)} fit",
            edit=partial(_fed, instead=dict(zip(ids, meant, strict=True))),
            fix=Fix(flags=("--aux-layer-ids", ",".join(map(str, meant)))),
        )  # fmt: skip
    if len(ids) > 1:
        yield Hypothesis(
            code="aux-states-reversed", aspect="order of states",
            says="`fc.weight` wants the states from the highest layer to the lowest, and is given them the other way",
            edit=lambda parts: replace(parts, fed=parts.fed[::-1]),
            fix=Fix(words="put the columns of `fc.weight` in the order of the layers: servers sort the ids"),
        )  # fmt: skip


def _of_the_last_state(base: Base) -> Iterator[Hypothesis]:
    yield Hypothesis(
        code="state-before-norm", aspect="state", says="it learned from states before the verifier's final norm",
        edit=lambda parts: replace(parts, fed=(base.layers,)),
        fix=Fix(words="servers give a draft of this type the states after that norm: train it on those"),
    )  # fmt: skip
    yield Hypothesis(
        code="head-after-norm", aspect="final norm",
        says="its own state wants the verifier's final norm before the head",
        edit=lambda parts: replace(parts, head_norm=base.norm),
        fix=Fix(words="servers give this state to the head as it is: train it for that"),
    )  # fmt: skip


def _fed(parts: Parts, instead: dict[int, int]) -> Parts:
    fed = tuple(instead[state] if isinstance(state, int) else state for state in parts.fed)
    return replace(parts.configured(eagle_aux_hidden_state_layer_ids=sorted(instead.values())), fed=fed)


def _listed(ids: Ids) -> str:
    return ", ".join(map(str, ids))
