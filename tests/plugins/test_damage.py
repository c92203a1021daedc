"""One change to the header of a sound checkpoint is always refused: nothing is lost or misread without a word."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spec_convert.detection import recognise
from spec_convert.errors import Refused
from spec_convert.findings import errors
from spec_convert.formats import Request
from spec_convert.open import open_checkpoint
from spec_convert.plan import Plan, make_plan
from spec_convert.verifier import open_verifier

KINDS = ("eagle", "eagle-layernorms", "eagle-mlp", "eagle3", "eagle3-specforge", "speculators-eagle", "unified")
REBUILT = {"t2d"}  # leaving it out is no damage: d2t tells the same
MODEST = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(params=KINDS)
def sound(request: pytest.FixtureRequest) -> Any:
    """A sound checkpoint of each kind, with every tensor that its dialect must have."""
    make: dict[str, str] = {
        "eagle-mlp": "mlp", "eagle3": "eagle3", "eagle3-specforge": "specforge", "speculators-eagle": "old_library",
    }  # fmt: skip
    draft = request.getfixturevalue(make.get(request.param, "eagle"))()
    if request.param == "eagle-layernorms":
        norms = ("embed_layernorm", "hidden_layernorm", "lm_head_layernorm")
        draft.tensors |= {f"{name}.weight": torch.ones(16) for name in norms}
    if request.param == "eagle3-specforge":
        draft.tensors |= {f"fc_norm.{n}.weight": torch.ones(16) for n in range(3)}
        draft.set(fc_norm=True)
    if request.param == "unified":
        draft.tensors["fc.bias"] = torch.ones(16)
        converted = draft.convert()
        draft.config, draft.tensors = converted.config, converted.tensors
    return draft


def planned(draft: Any) -> Plan | None:
    """The plan of converting it, or None when it is refused before there is one."""
    try:
        return make_plan(recognise(open_checkpoint(draft.write())), Request(verifier=open_verifier(draft.verifier)))
    except Refused:
        return None


def refused(draft: Any) -> bool:
    plan = planned(draft)
    return plan is None or bool(errors(plan.findings))


def damaged(data: st.DataObject, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One tensor left out, added, renamed, transposed, of another size, or of another number of dimensions."""
    changed = dict(tensors)
    name = data.draw(st.sampled_from(sorted(tensors)), label="tensor")
    tensor = tensors[name]
    ways = ["rename", "resize", "reshape", "add"] + ["drop"] * (name not in REBUILT)
    ways += ["transpose"] * (tensor.ndim == 2 and tensor.shape[0] != tensor.shape[1])
    match data.draw(st.sampled_from(ways), label="way"):
        case "drop":
            del changed[name]
        case "add":
            changed[f"{name}_scale"] = torch.ones(1)
        case "rename":
            changed[f"{name}.{data.draw(st.sampled_from(['0', 'bias', 'weight']))}"] = changed.pop(name)
        case "transpose":
            changed[name] = tensor.T.contiguous()
        case "reshape":
            changed[name] = tensor[None].clone()
        case _:
            axis = data.draw(st.integers(0, tensor.ndim - 1), label="axis")
            size = data.draw(st.integers(0, 2 * tensor.shape[axis] + 1).filter(lambda n: n != tensor.shape[axis]))
            shape = [*tensor.shape]
            shape[axis] = size
            changed[name] = torch.ones(shape).to(tensor.dtype)
    return changed


def test_a_sound_checkpoint_is_accepted(sound: Any) -> None:
    assert not refused(sound)


@MODEST
@given(data=st.data())
def test_any_one_damage_is_refused(sound: Any, data: st.DataObject) -> None:
    assert refused(replace(sound, tensors=damaged(data, sound.tensors)))


ODD = st.sampled_from(
    [None, True, False, 0, -1, 1, 2.5, 1e999, 10**30, "", "llama", [], [1, 2], [[]], {}, {"a": 1}, {"rope_type": 3}]
)


@MODEST
@given(data=st.data())
def test_any_odd_value_in_the_config_is_refused_or_understood(sound: Any, data: st.DataObject) -> None:
    config = json.loads(json.dumps(sound.config))
    keys = [*config, "head_dim", "rope_scaling", "rope_parameters", "eagle_config", "target_hidden_size", "norm_output"]
    place, key = config, data.draw(st.sampled_from(keys), label="key")
    while isinstance(place.get(key), dict) and data.draw(st.booleans(), label="go deeper"):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)), label="inner key")
    place[key] = data.draw(ODD, label="value")
    plan = planned(replace(sound, config=config))
    if plan is not None and not errors(plan.findings):
        json.dumps(plan.config, allow_nan=False)  # raises for what is no JSON
