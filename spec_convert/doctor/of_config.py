"""What may be wrong in config.json: where norms stand, the rotary base, parts of the draft that are not to be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from spec_convert.doctor.hypothesis import Base, Fix, Hypothesis
from spec_convert.doctor.parts import Parts
from spec_convert.unified import Eagle3Config, EagleConfig

# What drafts are trained with when nobody says a base, and those of Llama-3 and of Qwen2 and Qwen3.
WELL_KNOWN = (10_000.0, 500_000.0, 1_000_000.0)
PLACES = {"before_fusion": "hidden_layernorm.weight", "after_fusion": "layers.0.input_layernorm.weight"}
OTHER_PLACE = {"before_fusion": "after_fusion", "after_fusion": "before_fusion"}
AROUND = ("embed_layernorm.weight", "lm_head_layernorm.weight")


def of_config(parts: Parts, base: Base) -> Iterator[Hypothesis]:
    match parts.config:
        case Eagle3Config():
            yield from _of_norm_flags(parts.config)
        case EagleConfig():
            yield from _of_layernorms(parts.config)
            yield from _of_fusion_bias(parts.config)
    yield from _of_rope(parts, base)


def _of_norm_flags(config: Eagle3Config) -> Iterator[Hypothesis]:
    before = not config.norm_before_residual
    yield Hypothesis(
        code="norm-before-residual", aspect="norm placement",
        says=f"the residual is taken {'after' if before else 'before'} `hidden_norm`, and config.json says otherwise",
        edit=lambda parts: parts.configured(norm_before_residual=before),
        fix=Fix(flags=("--norm-before-residual" if before else "--no-norm-before-residual",)),
    )  # fmt: skip
    output = not config.norm_output
    yield Hypothesis(
        code="norm-output", aspect="fed-back state",
        says=f"the state for the next step is taken {'after' if output else 'before'} `norm`, and config.json says "
        "otherwise",
        edit=lambda parts: parts.configured(norm_output=output),
        fix=Fix(words=f"set `norm_output` in config.json to {str(output).lower()}"),
    )  # fmt: skip


def _of_layernorms(config: EagleConfig) -> Iterator[Hypothesis]:
    position = config.layernorm_position
    if position is None:
        return
    yield Hypothesis(
        code="no-layernorms", aspect="layernorms", says="it learned without the extra layernorms that the file holds",
        edit=partial(_without_layernorms, position=position), fix=Fix(flags=("--no-layernorms",)),
    )  # fmt: skip
    other = OTHER_PLACE[position]
    belongs, stands = (place.replace("_", " the ") for place in (other, position))
    yield Hypothesis(
        code="layernorm-moved", aspect="layernorms",
        says=f"the norm of the verifier's state belongs {belongs}, and stands {stands}",
        edit=partial(_moved, position=position, other=other),
        fix=Fix(words=f"set `layernorm_position` to {other}, and call `{PLACES[position]}` `{PLACES[other]}`"),
    )  # fmt: skip


def _of_fusion_bias(config: EagleConfig) -> Iterator[Hypothesis]:
    if config.fusion_bias:
        yield Hypothesis(
            code="no-fusion-bias", aspect="fusion bias", says="it learned without the `fc.bias` that the file holds",
            edit=lambda parts: parts.configured(fusion_bias=False).holding({"fc.bias": None}),
            fix=Fix(flags=("--no-fusion-bias",)),
        )  # fmt: skip


def _of_rope(parts: Parts, base: Base) -> Iterator[Hypothesis]:
    layer = parts.config.transformer_layer_config
    theirs, scaling = _rope(base.config)
    for theta in sorted({*WELL_KNOWN, theirs or WELL_KNOWN[0]} - {layer.rope_theta}):
        whose = ", the verifier's" if theta == theirs else ""
        yield Hypothesis(
            code=f"rope-theta-{theta:.0f}", aspect="rotary base",
            says=f"its rotary base is {theta:.0f}{whose}, not {layer.rope_theta:g}",
            edit=partial(Parts.layered, rope_theta=theta), fix=Fix(flags=("--rope-theta", f"{theta:.0f}")),
        )  # fmt: skip
    if layer.rope_scaling is not None:
        yield _scaled("rope-not-scaled", "it learned without the `rope_scaling` of config.json", None)
    if scaling is not None and scaling != layer.rope_scaling:
        yield _scaled("rope-scaled", "it learned with the `rope_scaling` of the verifier", scaling)


def _scaled(code: str, says: str, scaling: dict[str, Any] | None) -> Hypothesis:
    value = "null" if scaling is None else "that of the verifier's config.json"
    return Hypothesis(
        code=code, aspect="rotary scaling", says=says, edit=partial(Parts.layered, rope_scaling=scaling),
        fix=Fix(words=f"set `rope_scaling` in the `transformer_layer_config` of config.json to {value}"),
    )  # fmt: skip


def _rope(config: Mapping[str, Any]) -> tuple[float | None, dict[str, Any] | None]:
    """Base and scaling of the verifier, in either spelling of its config; None for what it does not say."""
    said = config.get("rope_parameters") or config.get("rope_scaling")
    scaling = {key: value for key, value in said.items() if key != "rope_theta"} if isinstance(said, dict) else {}
    theta = config.get("rope_theta", said.get("rope_theta") if isinstance(said, dict) else None)
    scales = scaling.get("rope_type", scaling.get("type", "default")) != "default"
    return float(theta) if isinstance(theta, int | float) and theta > 0 else None, scaling if scales else None


def _without_layernorms(parts: Parts, position: str) -> Parts:
    changed = parts.configured(layernorms=False, layernorm_position=None)
    return changed.holding(dict.fromkeys([*AROUND, PLACES[position]]))


def _moved(parts: Parts, position: str, other: str) -> Parts:
    norm = parts.tensors[PLACES[position]]
    return parts.configured(layernorm_position=other).holding({PLACES[position]: None, PLACES[other]: norm})
