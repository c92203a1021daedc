"""A small real HTTP server that plays a capturing vLLM: it answers with the name of a file, and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from .servers import Body, Reply


def states_of(token_ids: Sequence[int], layer_ids: Sequence[int], hidden: int) -> Tensor:
    """[T, L, H] float32: other numbers for every token, place, layer and dimension."""
    tokens = torch.tensor(token_ids, dtype=torch.float32)[:, None, None]
    places = torch.arange(len(token_ids), dtype=torch.float32)[:, None, None]
    layers = torch.tensor(layer_ids, dtype=torch.float32)[None, :, None]
    dimensions = torch.arange(hidden, dtype=torch.float32)[None, None]
    return (tokens + places / 8 + 1).sin() * (layers + 1) + dimensions / 16


@dataclass
class Capturing:
    """What such a server does: a responder of `servers.serving`."""

    storage: Path
    layer_ids: Sequence[int]
    hidden: int
    dtype: torch.dtype = torch.float32
    says_layers: bool = True
    named: Path | None = None  # what the server calls its storage
    lost: int = 0  # so many of its files never come

    def __post_init__(self) -> None:
        self._numbers = count()

    def __call__(self, body: Body) -> Reply:
        assert body["max_tokens"] == 1
        name = f"{next(self._numbers)}.safetensors"
        if self.lost > 0:
            self.lost -= 1
        else:
            self.write(name, body["prompt"])
        parameters: dict[str, Any] = {"hidden_states_path": str((self.named or self.storage) / name)}
        if self.says_layers:
            parameters["layer_ids"] = list(self.layer_ids)
        return Reply({"choices": [{"text": "x"}], "kv_transfer_params": parameters})

    def write(self, name: str, token_ids: Sequence[int]) -> None:
        states = states_of(token_ids, self.layer_ids, self.hidden).to(self.dtype)
        partial = self.storage / f"{name}.partial"
        save_file({"hidden_states": states, "token_ids": torch.tensor(token_ids)}, partial)
        partial.rename(self.storage / name)
