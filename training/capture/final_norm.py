"""The verifier's final norm: from the stored state of its last layer to what its head reads."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.models.load import read_torch
from spec_convert.verifier import Verifier

NAMES = (
    "model.norm.weight",
    "norm.weight",
    "model.language_model.norm.weight",
    "language_model.model.norm.weight",
)
# By `model_type`: the root mean square is scaled to the weight, or to one more than the weight.
BY_WEIGHT = frozenset(
    {
        "deepseek_v3", "gpt_oss", "llama", "llama4_text", "mistral", "mixtral", "phi3", "qwen2", "qwen2_moe", "qwen3",
        "qwen3_moe",
    }
)  # fmt: skip
BY_ONE_MORE = frozenset({"gemma", "gemma2", "gemma3_text", "qwen3_next"})


def final_norm(verifier: Verifier) -> Callable[[Tensor], Tensor]:
    """A function of states [..., H] before the verifier's final norm, of any dtype, to those after it, in float32.

    Raises UsageError when it is not known how this verifier normalises, Unreadable when its weights cannot be read.
    """
    weight, epsilon = norm_weight(verifier), _epsilon(verifier)

    def normed(states: Tensor) -> Tensor:
        exact = states.float()
        scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + epsilon)
        return exact * scale * weight.to(exact.device)

    return normed


def norm_weight(verifier: Verifier) -> Tensor:
    """[H] float32: by what the final norm multiplies each number. Raises as `final_norm` does."""
    kind = verifier.text_config.get("model_type")
    if kind not in BY_WEIGHT | BY_ONE_MORE:
        raise UsageError(
            f"the final norm of {verifier.name} is not known here: its model_type is {kind}",
            hint=f"known are {', '.join(sorted(BY_WEIGHT | BY_ONE_MORE))}",
        )
    checkpoint = verifier.checkpoint
    name = next((name for name in NAMES if name in checkpoint), None)
    if name is None or checkpoint.shape(name) != (verifier.hidden_size,):
        found = "has none" if name is None else f"has the shape {checkpoint.shape(name)}"
        raise UsageError(
            f"{verifier.name} should hold the weight of its final norm, [{verifier.hidden_size}], and {found}",
            hint=f"looked for {', '.join(NAMES)}",
        )
    weight = read_torch(checkpoint, name, torch.float32)
    return weight if kind in BY_WEIGHT else 1 + weight


def _epsilon(verifier: Verifier) -> float:
    value = verifier.text_config.get("rms_norm_eps")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(
            f"the config.json of {verifier.name} says {value!r} for `rms_norm_eps`, which its final norm needs",
            hint="take the config.json that was published with the weights",
        )
    return float(value)
