"""The loop of `generate` and `collect`: what is planned and not there yet goes through the engine into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from spec_convert.errors import UsageError
from spec_convert.training.capture.engine import Chunk, Engine
from spec_convert.training.store.reading import Store
from spec_convert.training.store.sample import Sample

if TYPE_CHECKING:
    from torch import Tensor


class Sink(Protocol):
    """What takes finished shards, each at one instant: a store, or a folder of the community's files."""

    @property
    def done(self) -> frozenset[int]:
        """The numbers of the shards that are there."""
        ...

    def write(self, number: int, samples: Sequence[Sample]) -> object: ...


def capture(
    prepared: Store,
    shards: Sequence[Sequence[int]],
    engine: Engine,
    sink: Sink,
    *,
    on_tokens: Callable[[int], object],
) -> None:
    """Capture ``shards``, each a list of places in ``prepared``, leaving out those that are done.

    ``on_tokens`` is told how many tokens each finished shard holds. Raises UsageError.
    """
    left = [number for number in range(len(shards)) if number not in sink.done]
    under_way: dict[int, list[Sample]] = {}  # an engine may read ahead

    def chunks() -> Iterator[Chunk]:
        for number in left:
            under_way[number] = [prepared[place] for place in shards[number]]
            yield [sample.input_ids.tolist() for sample in under_way[number]]

    for number, states in zip(left, engine.capture(chunks()), strict=True):
        samples = under_way.pop(number)
        _write(sink, number, samples, states)
        states.clear()  # while the engine goes on: they take memory, or a place on the disk from which they are mapped
        on_tokens(sum(map(len, samples)))


def _write(sink: Sink, number: int, samples: Sequence[Sample], states: Sequence[Tensor]) -> None:
    pairs = zip(samples, states, strict=True)
    sink.write(number, [replace(sample, hidden_states=_finite(state, sample)) for sample, state in pairs])


def _finite(states: Tensor, sample: Sample) -> Tensor:
    import torch

    if not torch.stack(states.aminmax()).isfinite().all():
        raise UsageError(
            f"the states of sample {sample.index} are not all finite numbers in {str(states.dtype)[6:]}",
            hint="large ones need --dtype bfloat16, and --compute-dtype bfloat16 or float32",
        )
    return states
