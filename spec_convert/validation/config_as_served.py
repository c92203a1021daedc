"""The config of a unified directory as it lies, key by key against the same as it is meant."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spec_convert.findings import Finding
from spec_convert.plan import Plan
from spec_convert.rules import found
from spec_convert.validation.server_defaults import (
    AUX_IDS,
    BLOCKS,
    COUNT,
    FUSED,
    Absent,
    rope_as_served,
    taken_at_top,
    taken_in_layer,
    taken_in_model,
)

LAYERS = "transformer_layer_config"
TOP, LAYER, MODEL = "config.json", f"config.json: {LAYERS}", "config.json: model"
HINT = "`spec-convert convert SOURCE OUTPUT` writes what is meant"
KNOWN = (*FUSED, *BLOCKS, "eagle", "eagle_mlp")  # the types whose servers are known here
UNSERVED = "mtp"  # no server takes it as it lies, and what the library leaves out its classes of the target fill up
ROPE = {"rope_theta", "rope_scaling"}
PROMISES = {"norm_before_fc", "fc_norm"}  # held against the tensors by the plan itself
POSITIONS = "max_position_embeddings"
ELSEWHERE = {"speculators_config", LAYERS, "model", "model_type", AUX_IDS}  # looked at on their own


def part_of(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A nested object, or an empty one."""
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def config_findings(plan: Plan, meant: Mapping[str, Any], untold: set[str]) -> Iterator[Finding]:
    """What servers would guess or read otherwise than it is ``meant``. Nothing tells the keys that are ``untold``."""
    config = plan.detection.checkpoint.config or {}
    extended = any(finding.rule == "positions-extended" for finding in plan.findings)
    pairs = _pairs(config, meant, untold, {POSITIONS} if extended else set())
    for pair in pairs:
        yield from pair.differences()
    if guessed := [key for pair in pairs for key in pair.guessed()]:
        yield found("not-written", where=TOP, message=f"leaves out {', '.join(guessed)}", hint=HINT)
    if extended:
        said, wanted = part_of(config, LAYERS).get(POSITIONS), part_of(meant, LAYERS).get(POSITIONS)
        message = f"states {said} positions, the verifier has {wanted}"
        yield found("drafting-ends-early", where=LAYER, message=message, hint=HINT)
    if AUX_IDS in meant:
        yield from _layer_ids(plan, config, None if AUX_IDS in untold else meant[AUX_IDS])
    if meant.get("model_type") == "eagle" and config.get("model_type") is None:
        message = "has no `model_type` and `model`, by which a stock vLLM would serve this draft"
        yield found("needs-the-vllm-plugin", where=TOP, message=message)


@dataclass(frozen=True)
class _Pair:
    """A part of the config as it is said and as it is meant, and what servers take for each key that is not there."""

    where: str
    said: Mapping[str, Any]
    meant: Mapping[str, Any]
    taken: Mapping[str, Any]
    apart: set[str]  # keys that this comparison leaves alone
    qwen3: bool = False

    def differences(self) -> Iterator[Finding]:
        for key, served in self._unlike():
            said, wanted = self.said.get(key), f"{reprlib.repr(self.meant[key])} is meant"
            if said is not None:
                checked = key in PROMISES and isinstance(said, bool)
                if not checked and (self.meant[key] is not None or said != served):
                    yield self._otherwise(key, f"says `{key}` is {reprlib.repr(said)}; {wanted}")
            elif served is Absent.REQUIRED:
                yield self._absent(key, f"has no `{key}`, which servers cannot do without; {wanted}")
            elif served != self.meant[key]:
                yield self._absent(key, f"has no `{key}`: vLLM takes {reprlib.repr(served)}; {wanted}")
        if self.apart >= ROPE and self.meant.keys() >= ROPE:
            yield from self._rope()

    def guessed(self) -> Iterator[str]:
        """The keys that are not there, and that servers happen to take as they are meant."""
        return (key for key, served in self._unlike() if self.said.get(key) is None and served == self.meant[key])

    def _unlike(self) -> Iterator[tuple[str, Any]]:
        for key, wanted in self.meant.items():
            served = self.taken.get(key, Absent.REQUIRED)
            if key not in self.apart and served is not Absent.UNREAD and self.said.get(key) != wanted:
                yield key, served

    def _otherwise(self, key: str, message: str) -> Finding:
        return self._told(key, message, rule="read-otherwise")

    def _absent(self, key: str, message: str) -> Finding:
        return self._told(key, message, rule="left-to-servers")

    def _told(self, key: str, message: str, rule: str) -> Finding:
        if key == COUNT:
            return found("aux-count", where=self.where, message=message, hint=HINT)
        return found(rule, where=self.where, message=message, hint=HINT)

    def _rope(self) -> Iterator[Finding]:
        base, scaling = rope_as_served(self.said, qwen3=self.qwen3)
        wanted = self.meant["rope_theta"]
        if base != wanted:
            told = any(
                part.get("rope_theta") is not None
                for part in (self.said, part_of(self.said, "rope_parameters"), part_of(self.said, "rope_scaling"))
            )
            says = "`rope_theta` stands where" if told else "has no `rope_theta`:"
            message = f"{says} vLLM takes {reprlib.repr(base)}; {wanted:g} is meant"
            yield self._otherwise("rope_theta", message) if told else self._absent("rope_theta", message)
        if scaling != self.meant["rope_scaling"]:
            message = f"vLLM takes the later of `rope_parameters` and `rope_scaling`, which scales {_shown(scaling)}"
            yield self._otherwise("rope_scaling", f"{message}; {_shown(self.meant['rope_scaling'])} is meant")
        elif (
            scaling
            and "linear" in (scaling.get("rope_type"), scaling.get("type"))
            and type(scaling.get("factor")) is int
        ):
            message = "the `factor` of linear scaling is a whole number: vLLM takes it for a list, and fails"
            yield self._otherwise("rope_scaling", message)


def _shown(scaling: Mapping[str, Any] | None) -> str:
    return "nothing" if scaling is None else reprlib.repr(dict(scaling))


def _pairs(config: Mapping[str, Any], meant: Mapping[str, Any], untold: set[str], apart: set[str]) -> list[_Pair]:
    kind, layer, model = str(config.get("speculators_model_type")), part_of(config, LAYERS), part_of(config, "model")
    if kind == UNSERVED:
        return []
    pairs = [_Pair(TOP, config, meant, taken_at_top(kind, layer), ELSEWHERE | untold)]
    if wanted := part_of(meant, LAYERS):
        qwen3 = kind in BLOCKS or (kind in FUSED and layer.get("model_type") == "qwen3")
        apart = apart | (ROPE if kind in KNOWN else set())
        pairs.append(_Pair(LAYER, layer, wanted, taken_in_layer(kind, layer, config), apart, qwen3))
    if config.get("model_type") == "eagle" and (wanted := part_of(meant, "model")):
        pairs.append(_Pair(MODEL, model, wanted, taken_in_model(model), apart))
    return pairs


def _layer_ids(plan: Plan, config: Mapping[str, Any], meant: list[int] | None) -> Iterator[Finding]:
    """Which states of the verifier the draft is fed. vLLM looks for them at the top level alone."""
    if config.get(AUX_IDS):
        return
    verifier = plan.request.verifier
    layers = verifier.num_hidden_layers if verifier else None
    taken = "2, N//2, N-3" if layers is None else f"2, {layers // 2}, {layers - 3}"
    if meant is not None and layers is not None and meant != [2, layers // 2, layers - 3]:
        message = f"has no `{AUX_IDS}` at its top level: vLLM takes {taken}; {meant} is meant"
        yield found("left-to-servers", where=TOP, message=message, hint=HINT)
        return
    message = f"has no `{AUX_IDS}` at its top level: vLLM takes {taken} of the verifier at hand"
    hint = "`spec-convert convert SOURCE OUTPUT --aux-layer-ids A,B,C` writes the ids that it was trained with"
    yield found("aux-layer-ids-not-written", where=TOP, message=message, hint=hint)
