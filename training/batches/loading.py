"""From stored samples to packed rows, with the states that a draft is fed and those that it is measured by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.training.batches.batch import Batch
from spec_convert.training.batches.packing import packed_rows
from spec_convert.training.store.community_reading import PtFolder
from spec_convert.training.store.manifest import LayerFacts
from spec_convert.training.store.reading import Store
from spec_convert.training.store.sample import Sample


class PackedRows:
    """The rows of every epoch. ``layer_ids``: boundary ids of the states that the draft is fed; none: the final one.

    ``normed``: the verifier's final norm, by which the stored state of its last layer becomes what the head reads.
    ``padded``: every row has ``capacity`` tokens, for kernels that are compiled for one length. ``whole``: prompts are
    learned like answers.
    """

    def __init__(  # noqa: PLR0913  what a row depends on, each by name
        self,
        data: Store | PtFolder,
        *,
        layer_ids: Sequence[int],
        normed: Callable[[Tensor], Tensor],
        capacity: int,
        seed: int,
        padded: bool = False,
        whole: bool = False,
    ) -> None:
        layers = data.layers
        if layers is None:
            raise UsageError(
                f"{data.folder} holds tokens without the verifier's states",
                hint=f"capture them: spec-convert generate {data.folder} OUTPUT",
            )
        self.data, self.capacity, self.seed, self.padded, self.whole = data, capacity, seed, padded, whole
        self._fed = _places(data, layers, layer_ids)
        self._normed = normed if layers.last == "before_norm" else Tensor.float
        self._epoch: tuple[int, list[tuple[int, ...]]] | None = None

    def rows(self, epoch: int) -> int:
        """How many rows this epoch has."""
        return len(self._rows(epoch))

    def load(self, epoch: int, row: int) -> Batch:
        return self._batch([self.data[place] for place in self._rows(epoch)[row]])

    def samples(self, epoch: int, row: int) -> int:
        """How many samples are in a row."""
        return len(self._rows(epoch)[row])

    def _rows(self, epoch: int) -> list[tuple[int, ...]]:
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, packed_rows(self.data.lengths, self.capacity, seed=self.seed, epoch=epoch)
        return self._epoch[1]

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        lengths = [min(len(sample), self.capacity) for sample in samples]
        pairs = list(zip(samples, lengths, strict=True))
        states = torch.cat([_states(sample)[:length] for sample, length in pairs])
        bounds = tuple(accumulate(lengths, initial=0))
        batch = Batch(
            input_ids=torch.cat([sample.input_ids[:length] for sample, length in pairs]),
            loss_mask=torch.cat([sample.loss_mask[:length] | self.whole for sample, length in pairs]),
            states=states[:, self._fed].flatten(1) if self._fed else (final := self._normed(states[:, -1])),
            final=self._normed(states[:, -1]) if self._fed else final,
            bounds=bounds,
        )
        return padded(batch, self.capacity) if self.padded and bounds[-1] < self.capacity else batch


def padded(batch: Batch, length: int) -> Batch:
    """The batch with a last document of ``length - len(batch)`` tokens of which nothing is learned."""
    more = length - len(batch)

    def longer(tensor: Tensor) -> Tensor:
        return torch.cat((tensor, tensor.new_zeros(more, *tensor.shape[1:])))

    return Batch(
        input_ids=longer(batch.input_ids), loss_mask=longer(batch.loss_mask), states=longer(batch.states),
        final=longer(batch.final), bounds=(*batch.bounds, length),
    )  # fmt: skip


def _states(sample: Sample) -> Tensor:
    assert sample.hidden_states is not None, "the data have layers"
    return sample.hidden_states


def _places(data: Store | PtFolder, layers: LayerFacts, layer_ids: Sequence[int]) -> list[int]:
    """Where the wanted layers stand among the stored ones. The last of these must be the verifier's last.

    A draft that is fed that one too is fed it before the final norm, as servers do.
    """
    if layers.num_hidden_layers in layer_ids and layers.last == "after_norm":
        raise UsageError(
            f"{data.folder} holds the state of layer {layers.num_hidden_layers} after the final norm, and a draft is "
            "fed it before",
            hint="capture it again with `spec-convert generate`, or feed the draft lower layers: --target-layers",
        )
    wanted = [*dict.fromkeys((*layer_ids, layers.num_hidden_layers))]
    if missing := [layer for layer in wanted if layer not in layers.ids]:
        raise UsageError(
            f"{data.folder} holds the layers {_listed(layers.ids)}, and {_listed(missing)} is missing",
            hint=f"capture what the draft is fed: spec-convert generate --layers {','.join(map(str, wanted))}, "
            f"or feed it what is there: --target-layers {','.join(map(str, layers.ids[:-1]))}",
        )
    return [layers.ids.index(layer) for layer in layer_ids]


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids))
