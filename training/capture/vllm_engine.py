"""Captures with a vLLM of our own: it reads the texts of a chunk, its connector writes their states into files."""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spec_convert.errors import UsageError
from spec_convert.narration import say
from spec_convert.serving.capture import capture_arguments
from spec_convert.serving.captured import wait_for_states
from spec_convert.serving.process import Process, command_of, started
from spec_convert.serving.versions import require_vllm, untested_warning
from spec_convert.training.capture.engine import Chunk
from spec_convert.verifier import Verifier

if TYPE_CHECKING:
    from torch import Tensor

COMMAND = command_of("spec_convert.training.capture.vllm_worker")
FOLDER = ".vllm-states"  # within the scratch folder, and ours alone
AHEAD = 1  # chunks that vLLM may read while another is taken from it: the scratch folder holds one more than that
STALLED = 300.0  # seconds without the file of a text that has been read
OURS = {
    "model": "--verifier",
    "tokenizer": "--verifier",
    "revision": "--verifier BASE@REVISION",
    "tokenizer_revision": "--verifier BASE@REVISION",
    "dtype": "--compute-dtype",
    "speculative_config": "--layers",
    "kv_transfer_config": "--layers and --dtype",
    "tensor_parallel_size": "--tensor-parallel-size",
    "enable_prefix_caching": "nobody: every text is read by itself",
    "skip_tokenizer_init": "nobody: vLLM is given token ids",
}


@contextmanager
def open_vllm_engine(  # noqa: PLR0913  what `generate` decides, one by one
    verifier: Verifier,
    layer_ids: Sequence[int],
    *,
    dtype: str,
    compute_dtype: str,
    scratch: Path,
    tensor_parallel_size: int | None,
    llm_args: Mapping[str, Any],
    verbose: bool,
    longest: int | None = None,
) -> Iterator[VLLMEngine]:
    """An engine of the capture that reads with vLLM, in a process of its own that ends with the block.

    ``layer_ids``: boundary ids, ascending. ``dtype``: of the states, ``compute_dtype`` that of the model, or `auto`.
    ``scratch``: a folder with room for the states of two chunks; what an earlier run left there is removed.
    ``llm_args``: further arguments of vLLM's `LLM`. ``longest``: tokens of the longest text; None: vLLM takes what the
    model allows and the memory holds. ``verbose`` lets what vLLM prints through to stderr. Raises UsageError.
    """
    require_vllm()
    if warning := untested_warning():
        say(warning)
    folder = scratch.absolute() / FOLDER
    request = {
        "model": verifier.name,
        **({"revision": verifier.files.revision} if verifier.pinned else {}),
        "dtype": compute_dtype,
        "max_model_len": -1 if longest is None else longest + 1,  # vLLM wants to say something at the end
        "tensor_parallel_size": tensor_parallel_size or 1,
        "skip_tokenizer_init": True,
        **_allowed(llm_args),
        **capture_arguments(layer_ids, folder, dtype=dtype),
    }
    with _emptied(folder), started(COMMAND, verbose=verbose) as process:
        process.send(request)
        say("vLLM starts")
        process.receive()  # it is ready
        yield VLLMEngine(process, (len(layer_ids), verifier.hidden_size), dtype)
        process.send(None)


class VLLMEngine:
    """A vLLM that is running. See `Engine`."""

    name = "vllm"

    def __init__(self, process: Process, shape: tuple[int, int], dtype: str) -> None:
        self._process, self._shape, self._dtype = process, shape, dtype

    def capture(self, chunks: Iterable[Chunk]) -> Iterator[list[Tensor]]:
        """vLLM finishes a chunk before it begins the next, so what came before does not change the numbers."""
        under_way: deque[Chunk] = deque()
        for chunk in chunks:
            self._process.send([list(ids) for ids in chunk])
            under_way.append(chunk)
            if len(under_way) > AHEAD:
                yield self._taken(under_way.popleft())
        while under_way:
            yield self._taken(under_way.popleft())

    def _taken(self, chunk: Chunk) -> list[Tensor]:
        """The states of the chunk that is finished next. Its files are removed, and live on as long as the tensors."""
        files = map(Path, self._process.receive()["files"])
        return [self._states(file, ids) for file, ids in zip(files, chunk, strict=True)]

    def _states(self, file: Path, ids: Sequence[int]) -> Tensor:
        read, states = wait_for_states(file, timeout=STALLED)
        file.unlink()
        kind = f"{list(states.shape)} {str(states.dtype).removeprefix('torch.')}"
        wanted = f"{[len(ids), *self._shape]} {self._dtype}"
        if read.tolist() != list(ids) or kind != wanted:
            what = f"{kind} of {len(read)} tokens where {wanted} were asked for"
            raise UsageError(f"vLLM gave the wrong states: {what}", hint="this is a defect: please report it")
        return states


def _allowed(llm_args: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in llm_args:
        if name in OURS:
            raise UsageError(f"`{name}` is no argument to give to vLLM here", hint=f"it is decided by {OURS[name]}")
    return llm_args


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """The folder, empty at the start, gone at the end."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error}", hint="give another folder") from error
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
