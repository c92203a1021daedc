"""Captures with transformers in this process: the decoder reads batches of texts, hooks keep the wanted layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from spec_convert.errors import UsageError
from spec_convert.evaluation.memory import enough_memory
from spec_convert.evaluation.verifier_model import catch_state, load_model
from spec_convert.narration import say
from spec_convert.training.capture.batching import BATCHINGS, Batch, Batching
from spec_convert.training.capture.engine import Chunk
from spec_convert.verifier import Verifier

PACKAGES = ("torch", "transformers")
LESS_MEMORY = "read fewer tokens at once: --batch-tokens 1024; or compute in half of it: --compute-dtype bfloat16"
SEPARATE = 0.1  # texts packed into one row may differ by so much, relatively, from each alone: what rounding makes


class TransformersEngine:
    """See `Engine`. Batches never hold texts of two chunks, so what is yielded for one depends on no other."""

    name = "transformers"

    def __init__(
        self, model: Any, layer_ids: Sequence[int], *, dtype: str, batching: Batching, batch_tokens: int
    ) -> None:
        """``model``: a causal language model, put to use in its own dtype and on its own device."""
        self._decoder, self._layers, self._dtype = model.eval().get_decoder(), len(layer_ids), getattr(torch, dtype)
        self._device: torch.device = model.device
        self._batches = partial(BATCHINGS[batching], budget=batch_tokens)
        self._tokens, self._states = torch.empty(0), torch.empty(0)
        for place, layer in enumerate(layer_ids):
            catch_state(model, layer, partial(self._keep, place))
        if batching == "packed":
            self._require_separation()

    def capture(self, chunks: Iterable[Chunk]) -> Iterator[list[Tensor]]:
        for chunk in chunks:
            states: list[Tensor] = [torch.empty(0)] * len(chunk)
            for batch in self._batches(chunk):
                for place, state in zip(batch.places, torch.split(self._read(batch), batch.lengths), strict=True):
                    states[place] = state
            yield states

    @torch.inference_mode()
    def _read(self, batch: Batch) -> Tensor:
        """The states [tokens, L, H] of a batch, text after text."""
        self._tokens = batch.tokens.to(self._device)
        positions = {} if batch.position_ids is None else {"position_ids": batch.position_ids.to(self._device)}
        with enough_memory(LESS_MEMORY):
            self._decoder(input_ids=batch.input_ids.to(self._device), use_cache=False, **positions)
            return self._states.cpu()

    def _keep(self, place: int, state: Tensor) -> None:
        """Copied at once: a layer may reuse the memory of what enters it."""
        if place == 0:
            shape = len(self._tokens), self._layers, state.shape[-1]
            self._states = torch.empty(shape, dtype=self._dtype, device=state.device)
        self._states[:, place] = state.flatten(0, 1)[self._tokens]

    def _require_separation(self) -> None:
        """That this model keeps the texts of a row apart: some architectures ignore where the positions begin anew."""
        if "position_ids" in signature(self._decoder.forward).parameters:
            texts = [[1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1]]
            (together,) = BATCHINGS["packed"](texts, budget=16)
            both = self._read(together).float()
            alone = torch.cat([self._read(one) for text in texts for one in BATCHINGS["padded"]([text], budget=8)])
            apart = (both - alone.float()).norm(dim=-1) / alone.float().norm(dim=-1)
            if bool((apart < SEPARATE).all()):
                return
        raise UsageError(
            f"{type(self._decoder).__name__} does not keep the texts of a packed row apart",
            hint="let each text have a row of its own: --batching padded",
        )


@contextmanager
def open_transformers_engine(  # noqa: PLR0913  what `generate` decides, one by one
    verifier: Verifier,
    layer_ids: Sequence[int],
    *,
    dtype: str,
    compute_dtype: str,
    batching: Batching,
    batch_tokens: int,
    device: str | None,
) -> Iterator[TransformersEngine]:
    """An engine of the capture with the verifier in ``compute_dtype`` on ``device``, the best there is when None.

    ``layer_ids``: boundary ids, ascending. ``dtype``: of the states. Raises UsageError.
    """
    place = _usable(device or _best_device())
    say(f"Loading {verifier.name} in {compute_dtype} on {place}")
    with enough_memory(LESS_MEMORY):
        model = load_model(verifier.name, revision=verifier.files.revision, dtype=compute_dtype, device=place)
    yield TransformersEngine(model, layer_ids, dtype=dtype, batching=batching, batch_tokens=batch_tokens)


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _usable(device: str) -> str:
    try:
        torch.empty(1, device=device).cpu()  # from `meta` nothing comes back
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises each of them for some device
        reason = str(error).partition("\n")[0]
        raise UsageError(f"there is no device {device}: {reason}", hint=f"--device {_best_device()}") from error
    return device
