"""Whether a draft's weights are quantised, told by its tensors (configs are copied around), and by which scheme."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from spec_convert.checkpoint import Checkpoint
from spec_convert.containers.strict_json import MAX_LENGTH, parse_object
from spec_convert.findings import Finding
from spec_convert.rules import found

# What stands beside a weight, or in its place: compressed-tensors, ModelOpt, AWQ, GPTQ, bitsandbytes, Mistral.
MARKS = (
    "weight_scale", "weight_scale_inv", "weight_scale_2", "weight_packed", "weight_zero_point", "weight_shape",
    "input_scale", "qweight", "qzeros", "scales", "absmax", "qscale_weight", "qscale_act",
)  # fmt: skip
PACKED = frozenset({"F8_E4M3", "F8_E5M2", "F8_E8M0", "F4"})
WHAT_TO_DO = (
    "convert the draft as it was before quantisation; or multiply each weight with its scale, save them as bfloat16, "
    "and take `quantization_config` out of config.json"
)
BESIDE = "hf_quant_config.json"  # ModelOpt's exports


def marks_of(checkpoint: Checkpoint, *, but: Container[str] = ()) -> list[str]:
    """The tensors that only quantised weights have, without those that are left out anyway."""
    return sorted(
        name
        for name, tensor in checkpoint.tensors.items()
        if name not in but and (tensor.dtype in PACKED or name.rpartition(".")[2] in MARKS)
    )


def quantised(checkpoint: Checkpoint, *, but: Container[str] = ()) -> Finding | None:
    """The error with which a quantised draft is refused; None for one of plain floats."""
    marks = marks_of(checkpoint, but=but)
    if not marks:
        return None
    scheme = scheme_of(checkpoint) or "a scheme that no config names"
    message = f"quantised by {scheme}: a unified config has no place for its scales"
    return found("weights-quantised", where=marks[0], message=message, hint=WHAT_TO_DO)


def scheme_of(checkpoint: Checkpoint) -> str:
    """As config.json or ModelOpt's file beside it names the scheme; "" when neither does."""
    for said in (checkpoint.get("quantization_config"), _beside(checkpoint)):
        if isinstance(said, dict):
            words = [str(said[key]) for key in ("quant_method", "quant_algo", "format") if said.get(key)]
            if words:
                return " ".join(dict.fromkeys(words))
    return ""


def _beside(checkpoint: Checkpoint) -> Any:
    size = checkpoint.files.sizes().get(BESIDE)
    if size is None or size > MAX_LENGTH:
        return None
    with checkpoint.files.open(BESIDE) as stream:
        raw = stream.read()
    return parse_object(raw, where=BESIDE, rule="config-unreadable").get("quantization")
