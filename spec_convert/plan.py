"""What a conversion would do, as a value: it can be printed, compared, kept as a golden, or executed by the writer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from spec_convert.detection import Detection
from spec_convert.errors import Refused
from spec_convert.findings import Finding, errors
from spec_convert.formats import ALWAYS_HEEDED, Draft, Request
from spec_convert.mapping import Mapped, Step, apply
from spec_convert.operations import COPY, Cast, Header, Then
from spec_convert.quantisation import quantised
from spec_convert.rules import found
from spec_convert.shapes import Known
from spec_convert.tensor import BITS, FLOATS, Tensor
from spec_convert.third_party import own_model

if TYPE_CHECKING:
    import numpy as np


MOST_LISTED = 1000  # names that are dropped for one reason: of what stays in a large target, the rest is counted
MOST_STATES = 1000  # of its verifier that a draft can fuse: none has as many layers


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A conversion before it happens. ``config`` is None while a finding says which fact is missing."""

    detection: Detection
    request: Request
    steps: tuple[Step, ...]
    dropped: Mapping[str, str]
    config: Mapping[str, Any] | None
    findings: tuple[Finding, ...]
    sizes: Mapping[str, Known] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, Header]:
        """The output tensors in file order: wide elements first, so that every tensor lies aligned; then by name."""
        targets = [target for step in self.steps for target in step.targets]
        return dict(sorted(targets, key=lambda target: (-BITS[target[1].dtype], target[0])))

    @property
    def used(self) -> list[Tensor]:
        """The source tensors that end up in the output."""
        names = sorted({source for step in self.steps for source in step.sources})
        return [self.detection.checkpoint.tensors[name] for name in names]

    def compute(self, step: Step) -> dict[str, np.ndarray]:
        """The output tensors of one step, by name. Raises Refused when a value cannot be stored in them."""
        arrays = step.run([self.detection.checkpoint.read(source) for source in step.sources])
        return {name: array for (name, _), array in zip(step.targets, arrays, strict=True)}

    @property
    def config_text(self) -> str:
        assert self.config is not None, "a plan without a config cannot be written"
        return json.dumps(self.config, indent=2) + "\n"

    def require_clean(self) -> Plan:
        """The plan itself when nothing speaks against executing it. Raises Refused with every finding otherwise."""
        if errors(self.findings):
            raise Refused(self.findings)
        assert self.config is not None, "no config and no finding that says why"
        return self

    def to_json(self) -> dict[str, Any]:
        """Tensors moved and dropped, the config and the findings: what `--dry-run --json` prints."""
        return {
            "format": self.detection.format,
            "tensors": self.tensors_json(),
            "config": self.config,
            "findings": [finding.to_json() for finding in self.findings],
        }

    def tensors_json(self) -> dict[str, Any]:
        moved = [
            {
                "target": name,
                "sources": [self.detection.checkpoint.tensors[source].name for source in step.sources],
                "operation": step.via.name,
                "dtype": header.dtype,
                "shape": list(header.shape),
            }
            for step in self.steps
            for name, header in step.targets
        ]
        there = self.detection.checkpoint.tensors  # an export's plan also names what its source had dropped before
        dropped = {there[name].name if name in there else name: why for name, why in self.dropped.items()}
        return {"moved": moved, "dropped": _counted(dropped)}


def _counted(dropped: Mapping[str, str]) -> dict[str, str]:
    """The same, but where very many names have one reason, the first of them and how many more there are."""
    names: dict[str, list[str]] = {}
    for name, why in dropped.items():
        names.setdefault(why, []).append(name)
    many = {why: group for why, group in names.items() if len(group) > MOST_LISTED}
    few = {name: why for name, why in dropped.items() if why not in many}
    return few | {f"{group[0]} and {len(group) - 1} more": why for why, group in many.items()}


def make_plan(detection: Detection, request: Request) -> Plan:
    """What converting a recognised checkpoint as requested would do. Problems are findings of the plan."""
    checkpoint, fmt = detection.checkpoint, detection.winner
    layout = fmt.layout(checkpoint, request)
    mapped = apply(layout.table, checkpoint.tensors, layout.sizes)
    if fmt.unconverted is None and (problem := quantised(checkpoint, but=mapped.dropped)):
        seen = (*detection.findings, problem)  # what the table says of scales and packed numbers is beside the point
        return Plan(detection=detection, request=request, steps=(), dropped={}, config=None, findings=seen)
    findings = [*detection.findings, *_ignored_flags(detection, request), *layout.findings, *mapped.findings]
    config = None
    if not errors(findings):
        described = fmt.describe(Draft(checkpoint=checkpoint, request=request, mapped=mapped))
        findings += described.findings
        config = described.config
    if config is not None:
        config, invalid = _checked(config, detection)
        findings += invalid
    return Plan(
        detection=detection, request=request, steps=cast_steps(mapped, request.dtype), dropped=mapped.dropped,
        config=config, findings=tuple(findings), sizes=mapped.sizes,
    )  # fmt: skip


def with_any_layer_ids(plan: Plan, **flags: Any) -> Plan:
    """The plan that any layer ids, and these flags, would make: all else about a draft is the same whatever they are.

    For drafts whose ids depend on a verifier that nobody named. Only their number must be right: tables call it `aux`.
    """
    states = plan.sizes.get("aux")
    if states is None or states.value > MOST_STATES:
        return plan
    return make_plan(plan.detection, replace(plan.request, aux_layer_ids=tuple(range(states.value)), **flags))


def _ignored_flags(detection: Detection, request: Request) -> list[Finding]:
    heeded = ALWAYS_HEEDED | detection.winner.flags
    return [
        found("flag-not-heeded", where=f"--{name.replace('_', '-')}", message=f"means nothing for `{detection.format}`")
        for name in sorted(request.flags.keys() - heeded)
    ]


def _checked(config: Mapping[str, Any], detection: Detection) -> tuple[Mapping[str, Any] | None, list[Finding]]:
    """The config as its model writes it, or one finding for each field that is not what the model allows."""
    from pydantic import ValidationError

    from spec_convert.unified import UNIFIED

    own = detection.winner.own_type
    try:
        if own is not None:
            return own_model(own, config, detection.provider)[1], []
        return UNIFIED.validate_python(config).model_dump(mode="json"), []
    except ValidationError as invalid:
        # Without a type of its own, the first part of a place is only the model that pydantic tried.
        model = 0 if own is not None else 1
        places = [(".".join(map(str, problem["loc"][model:])), problem["msg"]) for problem in invalid.errors()]
        return None, [found("config-invalid", where=place or "config.json", message=words) for place, words in places]


def cast_steps(mapped: Mapped, dtype: str | None) -> tuple[Step, ...]:
    """The steps with every float tensor cast to ``dtype``; whole numbers and masks stay what they are."""
    if dtype is None:
        return mapped.steps
    return tuple(_cast_step(step, dtype) for step in mapped.steps)


def _cast_step(step: Step, dtype: str) -> Step:
    stored = {header.dtype for _, header in step.targets}
    if len(stored) > 1 or not stored <= FLOATS or stored == {dtype}:
        return step
    cast = Cast(dtype, *stored)
    targets = tuple((name, Header(dtype, header.shape)) for name, header in step.targets)
    return replace(step, targets=targets, via=cast if step.via is COPY else Then(step.via, cast))
