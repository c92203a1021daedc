"""Rotary position embedding: which angle each pair of channels turns by, under each published scaling of long texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from spec_convert.models.errors import DraftError
from spec_convert.unified import LayerConfig

Rotation = tuple[Tensor, Tensor]  # cosines and sines, each [B, 1, T, head_dim / 2]


class Rope:
    """The rotation of every position.

    Not a module: frequencies in a buffer would be rounded by `draft.to(torch.bfloat16)`, and far positions would blur.
    """

    def __init__(
        self, head_dim: int, theta: float, trained_length: int, scaling: Mapping[str, Any] | None = None
    ) -> None:
        """``head_dim``: how many channels of a head are turned."""
        self.head_dim = head_dim
        self.theta = theta
        self.trained_length = trained_length
        kind, parameters = _read(scaling, theta=theta)
        self.stretch = float(parameters["factor"]) if kind == "dynamic" else None
        self.frequencies, self.magnitude = SCALINGS[kind](self.head_dim, self.theta, **parameters)

    @classmethod
    def of(cls, config: LayerConfig) -> Rope:
        return cls(config.head_dim, config.rope_theta, config.max_position_embeddings, config.rope_scaling)

    def __call__(self, position_ids: Tensor) -> Rotation:
        frequencies = self.frequencies_up_to(position_ids).to(position_ids.device)
        angles = position_ids.float()[:, None, :, None] * frequencies
        return angles.cos() * self.magnitude, angles.sin() * self.magnitude

    def frequencies_up_to(self, position_ids: Tensor) -> Tensor:
        if self.stretch is None:
            return self.frequencies
        length = max(int(position_ids.max()) + 1, self.trained_length)
        growth = self.stretch * length / self.trained_length - (self.stretch - 1)
        return _frequencies(self.head_dim, self.theta * growth ** (self.head_dim / (self.head_dim - 2)))


def rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    """Turn channel i together with channel i + head_dim / 2 (the order of Llama and Qwen checkpoints)."""
    cos, sin = (part.to(heads.dtype) for part in rotation)
    first, second = heads.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _frequencies(head_dim: int, theta: float) -> Tensor:
    # The device is named because drafts are built under torch.device("meta").
    channels = torch.arange(0, head_dim, 2, dtype=torch.float, device="cpu")
    return 1.0 / theta ** (channels / head_dim)


def _read(scaling: Mapping[str, Any] | None, *, theta: float) -> tuple[str, dict[str, Any]]:
    """The kind of scaling and its parameters, when we know every one of them."""
    parameters = dict(scaling or {"rope_type": "default"})
    kinds = {parameters.pop(key) for key in ("rope_type", "type") if key in parameters}
    if len(kinds) != 1:
        raise DraftError(f"rope_scaling {scaling} must name one type, in `rope_type` or (older) `type`")
    kind = kinds.pop()
    if kind not in SCALINGS:
        raise DraftError(f"rope_scaling type {kind!r} is unknown; known are {', '.join(SCALINGS)}")
    if parameters.pop("rope_theta", theta) != theta:
        raise DraftError(f"rope_scaling {scaling} contradicts rope_theta {theta}")
    if parameters.pop("partial_rotary_factor", 1.0) != 1.0:
        raise DraftError(f"rope_scaling {scaling} turns only a part of each head, which is not known here")
    try:
        signature(SCALINGS[kind]).bind(0, 0, **parameters)
    except TypeError as error:
        raise DraftError(f"rope_scaling {scaling}: {error}") from error
    return kind, parameters


def _default(head_dim: int, theta: float) -> tuple[Tensor, float]:
    return _frequencies(head_dim, theta), 1.0


def _linear(head_dim: int, theta: float, *, factor: float) -> tuple[Tensor, float]:
    return _frequencies(head_dim, theta) / factor, 1.0


def _dynamic(head_dim: int, theta: float, *, factor: float) -> tuple[Tensor, float]:
    del factor  # it acts beyond the trained length only, see `frequencies_up_to`
    return _default(head_dim, theta)


def _llama3(  # noqa: PLR0913  (the keywords are the published ones)
    head_dim: int,
    theta: float,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position_embeddings: int,
) -> tuple[Tensor, float]:
    """Llama 3.1: fast channels stay, slow ones are divided by the factor, those between are blended."""
    plain = _frequencies(head_dim, theta)
    turns = original_max_position_embeddings * plain / (2 * math.pi)
    keep = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return keep * plain + (1 - keep) * plain / factor, 1.0


def _yarn(  # noqa: PLR0913  (the keywords are the published ones)
    head_dim: int,
    theta: float,
    *,
    factor: float,
    original_max_position_embeddings: int,
    attention_factor: float | None = None,
    beta_fast: float | None = None,
    beta_slow: float | None = None,
    mscale: float | None = None,
    mscale_all_dim: float | None = None,
    truncate: bool = True,
) -> tuple[Tensor, float]:
    """YaRN (arXiv 2309.00071). The betas are the paper's 32 and 1 unless the config says otherwise."""
    plain = _frequencies(head_dim, theta)

    def channel(turns: float) -> float:
        wavelength = original_max_position_embeddings / turns
        return head_dim / 2 * math.log(wavelength / (2 * math.pi)) / math.log(theta)

    low, high = channel(beta_fast or 32), channel(beta_slow or 1)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    ramp = (torch.arange(len(plain), device="cpu") - low) / (high - low or 0.001)
    keep = 1 - ramp.clamp(0, 1)
    if attention_factor is None:
        both = mscale and mscale_all_dim
        attention_factor = _mscale(factor, mscale) / _mscale(factor, mscale_all_dim) if both else _mscale(factor, 1)
    return keep * plain + (1 - keep) * plain / factor, attention_factor


def _mscale(factor: float, weight: float | None) -> float:
    return 0.1 * (weight or 1) * math.log(factor) + 1 if factor > 1 else 1.0


# What each function takes by keyword is what `rope_scaling` may and must hold: one key more, and we refuse.
SCALINGS: Mapping[str, Callable[..., tuple[Tensor, float]]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
}
