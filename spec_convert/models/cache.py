"""Keys and values of the tokens so far, so that decoding computes each token once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class Cache:
    """An `Attend` (see `layers`) that remembers: the rows of each call continue those of the calls before."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def length(self) -> int:
        """How many rows are remembered, the same in every layer between two calls of a draft."""
        return min((key.shape[2] for key, _ in self._held.values()), default=0)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        key, value = self.extend(layer, key, value)
        rows, seen = query.shape[2], key.shape[2]
        mask = torch.ones(rows, seen, dtype=torch.bool, device=query.device).tril(seen - rows)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Remember more rows. Returns the keys and values of all that are remembered."""
        if layer in self._held:
            keys, values = self._held[layer]
            key, value = torch.cat((keys, key), dim=2), torch.cat((values, value), dim=2)
        self._held[layer] = key, value
        return key, value

    def crop(self, length: int) -> None:
        """Forget all rows from ``length`` on: they were guesses that did not come true."""
        self._held = {layer: (key[:, :, :length], value[:, :, :length]) for layer, (key, value) in self._held.items()}
