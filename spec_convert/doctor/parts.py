"""What a draft is made of, as values: a hypothesis changes some, and the draft is built anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from spec_convert.evaluation.verifier_model import StateId
from spec_convert.models.contract import Draft, VerifierTensors
from spec_convert.models.draft import build_draft
from spec_convert.unified import Eagle3Config, EagleConfig

Kind = EagleConfig | Eagle3Config
TABLES = ("embed_tokens", "lm_head")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """``fed``: which states of the verifier the draft is given, low to high. ``head_norm``: the weight of a norm before
    its head, where the draft has none. ``elsewhere``: the states are those of other tokens, which tell it nothing.
    """

    config: Kind
    tensors: Mapping[str, Tensor]
    tables: VerifierTensors
    fed: tuple[StateId, ...]
    dtype: torch.dtype = torch.float32
    head_norm: Tensor | None = None
    elsewhere: bool = False

    def build(self, device: torch.device) -> Draft:
        """The draft of these parts. Raises DraftError for parts that make none."""

        def cast(tensor: Tensor) -> Tensor:
            return tensor.to(device, self.dtype) if tensor.is_floating_point() else tensor.to(device)

        shared = {name: None if (kept := getattr(self.tables, name)) is None else cast(kept) for name in TABLES}
        tensors = {name: cast(tensor) for name, tensor in self.tensors.items()}
        return build_draft(self.config, tensors, VerifierTensors(**shared)).to(device).eval()

    def configured(self, **changes: Any) -> Parts:
        return replace(self, config=self.config.model_copy(update=changes))

    def layered(self, **changes: Any) -> Parts:
        """With other facts of its decoder layers."""
        layer = self.config.transformer_layer_config.model_copy(update=changes)
        return self.configured(transformer_layer_config=layer)

    def holding(self, changed: Mapping[str, Tensor | None]) -> Parts:
        """With other weights. None: without this one."""
        every = {**self.tensors, **changed}
        return replace(self, tensors={name: tensor for name, tensor in every.items() if tensor is not None})
